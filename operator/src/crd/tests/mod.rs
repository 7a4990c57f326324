//! The schema and its rules, tried as an API server would try them.

mod admission;
mod conditions;
mod definition;
mod rules;
mod settings;
