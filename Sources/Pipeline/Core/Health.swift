/// A `health` block: how this node finds out which ready backends answer (R12). Immutable.
///
/// Ownership: the program, through the stages that name it; it frees the policy when the last of them has gone.
public final class HealthSettings: ConfigBlock, @unchecked Sendable {
    /// What an active probe does once it is connected.
    public enum Probe: Sendable, Equatable {
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
    public enum Panic: UInt8, Sendable {
        /// Refuse at once.
        case failFast
        /// Try them all the same, as if all were in.
        case useAll
    }

    public let name: String
    public let probe: Probe
    /// From one probe's begin to the next of the same backend.
    public let interval: TimeSpan
    /// Each interval is longer or shorter by up to this many percent, 0...50.
    public let jitterPercent: UInt8
    /// For the whole probe.
    public let timeout: TimeSpan
    /// Good probes in a row that put a backend in again.
    public let rise: UInt32
    /// Bad probes in a row that take it out.
    public let fall: UInt32
    /// The most probes begun a second, all backends of this block together.
    public let probesPerSecond: UInt32
    public let panic: Panic
    /// Never null; `after` is 0 if connect failures eject nobody.
    public let ejection: UnsafePointer<EjectionPolicy>

    public init(
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
