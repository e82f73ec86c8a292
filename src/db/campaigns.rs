//! stub
use super::{Db, Error};
use crate::model::campaign::Campaign;
use uuid::Uuid;
pub struct Change {
    pub campaign: Campaign,
    pub is_deleted: bool,
}
pub struct New;
impl New {
    pub fn demo(_: &str, _: &str) -> Self {
        New
    }
}
pub async fn horizon(_: &Db) -> Result<i64, Error> {
    Ok(1)
}
pub async fn changed_since(_: &Db, _: i64, _: Option<Uuid>, _: i64) -> Result<Vec<Change>, Error> {
    Ok(vec![])
}
pub async fn by_key(_: &Db, _: &str) -> Result<Option<Campaign>, Error> {
    Ok(None)
}
pub async fn insert(_: &Db, _: New) -> Result<(), Error> {
    Ok(())
}
pub async fn is_untouched(_: &Db) -> Result<bool, Error> {
    Ok(true)
}
