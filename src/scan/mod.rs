//! The scan of a job's objects as a DataFusion table: one partition per object, each downloaded, unpacked and decoded as it is
//! pulled. It composes `fetch` and `decode`; it does not reduce or write.
