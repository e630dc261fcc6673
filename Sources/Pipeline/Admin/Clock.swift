import CLinux

/// The monotonic clock, for those who need no more of Linux than that.
enum Clock {
    /// Nanoseconds.
    static var now: UInt64 { cl_now() }
}
