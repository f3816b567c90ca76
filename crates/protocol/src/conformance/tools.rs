//! Tools that are missed.

use super::*;
use domain::demand::{Lack, Miss};

fn wanted(tool: &'static str, lack: Lack, task: Option<TaskId>) -> Miss {
    Miss {
        tool: Name::literal(tool),
        lack,
        by: Name::literal("clerk"),
        run: None,
        task,
    }
}

/// A tool that is missed is counted by its name, with the first and the last time; for one task, once.
// S0-84, S0-158: the count and the last time per tool, durable, readable over the API.
pub async fn a_tool_that_is_missed_is_counted(api: Subject) {
    assert_eq!(api.tool_demand_list().await.unwrap(), []);
    let (one, other) = (Some(TaskId::new(1)), Some(TaskId::new(2)));
    let mail = "send_linkedin_message";
    api.tool_missed(wanted(mail, Lack::Unknown, one))
        .await
        .unwrap();
    let first = api.tool_demand_list().await.unwrap();
    let fax = wanted("fax", Lack::Unavailable, one);
    api.tool_missed(fax.clone()).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    // The same wish again, and then another one.
    api.tool_missed(wanted(mail, Lack::Unknown, one))
        .await
        .unwrap();
    api.tool_missed(wanted(mail, Lack::NotGranted, other))
        .await
        .unwrap();
    let demands = api.tool_demand_list().await.unwrap();
    assert_eq!(demands.len(), 2);
    assert_eq!(demands[0].last, wanted(mail, Lack::NotGranted, other));
    assert_eq!(
        (demands[0].count, demands[0].first_at),
        (2, first[0].first_at)
    );
    assert!(demands[0].last_at > demands[0].first_at);
    assert_eq!((demands[1].count, &demands[1].last), (1, &fax));
    // Without a task, every wish counts.
    for _ in 0..2 {
        api.tool_missed(wanted("fax", Lack::Unknown, None))
            .await
            .unwrap();
    }
    let demands = api.tool_demand_list().await.unwrap();
    assert_eq!(
        (demands[0].last.tool.as_str(), demands[0].count),
        ("fax", 3)
    );
}
