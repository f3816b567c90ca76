//! The product as its users meet it: the real program, in a folder of its own, from outside.

mod checker;
mod examples;
mod world;

mod agents;
mod backup;
mod bad_input;
mod chat;
mod config;
mod crew_file;
mod documented;
mod durability;
mod main_job;
mod network;
mod outreach;
mod sigkill;
mod steps;
mod terminal;
mod transcript;
mod views;
