//! Where intelligence happens: offline skills, the planner and the supervisor.
