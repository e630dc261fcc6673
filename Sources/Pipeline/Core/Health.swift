/// A `health` block: how this node finds out which ready backends answer (R12). Immutable.
///
/// Ownership: the program, through the stages that name it; it frees the policy when the last of them has gone.
package final class HealthSettings: ConfigBlock, @unchecked Sendable {
    /// What an active probe does once it is connected.
    package enum Probe: Sendable, Equatable {
        /// No active probes: only connect failures of real connections count.
        case off
        /// A connect that comes about is enough.
        case tcp
        /// Waits for bytes that begin with these.
        case expect([UInt8])
        /// Sends a ClientHello and waits for a ServerHello; the name is sent as SNI, if there is one.
        case tls(serverName: String?)
    }

    /// What `backend` does when every ready backend of a route is out.
    package enum Panic: UInt8, Sendable {
        /// Refuse at once.
        case failFast
        /// Try them all the same, as if all were in.
        case useAll
    }

    package let name: String
    package let probe: Probe
    /// From one probe's begin to the next of the same backend.
    package let interval: TimeSpan
    /// Each interval is longer or shorter by up to this many percent, 0...50.
    package let jitterPercent: UInt8
    /// For the whole probe.
    package let timeout: TimeSpan
    /// Good probes in a row that put a backend in again.
    package let rise: UInt32
    /// Bad probes in a row that take it out.
    package let fall: UInt32
    /// The most probes begun a second, all backends of this block together.
    package let probesPerSecond: UInt32
    package let panic: Panic
    /// Never null; `after` is 0 if connect failures eject nobody.
    package let ejection: UnsafePointer<EjectionPolicy>

    package init(
        name: String, probe: Probe, interval: TimeSpan, jitterPercent: UInt8, timeout: TimeSpan, rise: UInt32,
        fall: UInt32, probesPerSecond: UInt32, panic: Panic, ejection: EjectionPolicy
    ) {
        self.name = name
        self.probe = probe
        self.interval = interval
        self.jitterPercent = jitterPercent
        self.timeout = timeout
        self.rise = rise
        self.fall = fall
        self.probesPerSecond = probesPerSecond
        self.panic = panic
        let memory = UnsafeMutablePointer<EjectionPolicy>.allocate(capacity: 1)
        memory.initialize(to: ejection)
        self.ejection = UnsafePointer(memory)
    }

    deinit { ejection.deallocate() }
}
