mod control;
mod link;
