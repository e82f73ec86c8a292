//! stub
use super::campaign::text_enum;
text_enum! { /// x
Scope { /// a
Admin="admin", /// b
Read="read", /// c
Ingest="ingest" } }
