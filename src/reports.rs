//! Reports: what is asked (a closed list of dimensions and measures), where the answer is read (sums of one dimension, of days,
//! of hours, or the facts), and what becomes of the sums. The statements are in `db::store::reports`.

pub mod costs;
pub mod facts;
pub mod figures;
pub mod plan;
pub mod question;
