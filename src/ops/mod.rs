//! One file per verb; what a program would call. It prints nothing and reads no environment.
