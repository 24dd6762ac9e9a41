//! Brings the bytes of objects: resumable ranged streams, several at once, fresh URLs, unpacked or spooled to files.
//! It never parses rows.
