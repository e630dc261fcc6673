import Glibc

/// Seconds of processor time that `body` takes on this thread, at best of five: what else the machine does makes no
/// difference, as it would by a clock.
package func processorSeconds(_ body: () throws -> Void) rethrows -> Double {
    var best = Double.infinity
    for _ in 0..<5 {
        let begin = threadSeconds()
        try body()
        best = min(best, threadSeconds() - begin)
    }
    return best
}

/// What this thread has used so far.
package func threadSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}
