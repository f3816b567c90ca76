//! Many tasks at once, in requests that the server takes.

use crate::client::request::encode;
use crate::client::{BATCH_BYTES_MAX, Client, random};
use domain::command::Submission;
use domain::error::{Code, Error};
use domain::id::TaskId;
use domain::limits::REQUEST_COMMANDS_MAX;
use domain::name::Name;
use protocol::wire::Submitted;

/// What a body has around its items.
const AROUND: (&[u8], &[u8]) = (b"{\"tasks\":[", b"]}");

/// Items of one request.
struct Batch {
    body: Vec<u8>,
    items: usize,
}

/// Puts items into as few requests as fit, in order. An item that fits into none goes alone.
fn batches(items: Vec<Vec<u8>>, bytes_max: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for item in items {
        match batches.last_mut() {
            Some(batch) if batch.body.len() + item.len() + 1 + AROUND.1.len() <= bytes_max => {
                batch.body.push(b',');
                batch.body.extend_from_slice(&item);
                batch.items += 1;
            }
            _ => batches.push(Batch {
                body: [AROUND.0, &item].concat(),
                items: 1,
            }),
        }
    }
    for batch in &mut batches {
        batch.body.extend_from_slice(AROUND.1);
    }
    batches
}

impl Client {
    /// Every item has an id or a key, so that each request can be said again.
    pub(super) async fn submit(
        &self,
        mut tasks: Vec<Submission>,
    ) -> Result<Vec<Result<TaskId, Error>>, Error> {
        if tasks.len() > REQUEST_COMMANDS_MAX {
            let what = "tasks in one request";
            return Err(Error::limit(what, tasks.len(), REQUEST_COMMANDS_MAX));
        }
        let call = random();
        for (n, task) in tasks.iter_mut().enumerate() {
            if task.id.is_none() && task.key.is_none() {
                task.key = Some(Name::new(format!("{call}/{n}"))?);
            }
        }
        let items: Result<Vec<Vec<u8>>, Error> = tasks.iter().map(encode).collect();
        let mut results = Vec::with_capacity(tasks.len());
        for batch in batches(items?, BATCH_BYTES_MAX) {
            let items = batch.items;
            match self.submit_batch(batch).await {
                Ok(answers) => results.extend(answers),
                // What went before is accepted: whoever asked must hear of it.
                Err(error) if !results.is_empty() || is_of_its_item(&error, items) => {
                    results.extend(std::iter::repeat_n(Err(error), items));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(results)
    }

    async fn submit_batch(&self, batch: Batch) -> Result<Vec<Result<TaskId, Error>>, Error> {
        let request = self.post(&["v1", "tasks", "batch"])?.text(batch.body);
        let submitted: Submitted = self.ask(request).await?;
        if submitted.results.len() != batch.items {
            let text = format!(
                "the server answered {} of {} tasks",
                submitted.results.len(),
                batch.items
            );
            return Err(Error::new(Code::ServerStrange, text));
        }
        Ok(submitted.results.into_iter().map(Into::into).collect())
    }
}

/// A request refused for its size is about its only item, not about the call.
fn is_of_its_item(error: &Error, items: usize) -> bool {
    items == 1 && error.code == Code::PayloadTooLarge
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_go_in_order_in_as_few_requests_as_fit() {
        let item = |bytes: usize| vec![b'7'; bytes];
        let sizes = [3, 4, 5, 40, 1, 1];
        let made = batches(sizes.map(item).into(), 26);
        let counts: Vec<usize> = made.iter().map(|batch| batch.items).collect();
        // 10 around, 2 behind, a comma between: 3 + 4 + 5 would make 26 and does.
        assert_eq!(counts, [3, 1, 2]);
        assert_eq!(made[0].body.len(), 26);
        for batch in &made {
            assert!(batch.body.len() <= 26 || batch.items == 1);
            let body: serde_json::Value = serde_json::from_slice(&batch.body).unwrap();
            assert_eq!(body["tasks"].as_array().unwrap().len(), batch.items);
        }
        assert!(batches(Vec::new(), 26).is_empty());
    }
}
