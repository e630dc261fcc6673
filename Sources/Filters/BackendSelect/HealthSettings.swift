import Pipeline

/// A `health` block: how this node checks ready backends (R12). Immutable.
///
/// Ownership: the program, through the stages that name it; it frees the policy when the last of them has gone.
public final class HealthSettings: ConfigBlock, @unchecked Sendable {
    /// What `backend` does when every ready backend of a route is out.
    public enum Panic: String, Sendable, CaseIterable {
        /// Refuse at once.
        case failFast = "fail_fast"
        /// Try them anyway, as if all were healthy.
        case useAll = "use_all"
    }

    /// What happens to the established connections of a backend that goes down.
    public enum OnDown: String, Sendable, CaseIterable { case keep, end }

    /// What happens to those of later priorities when one of an earlier comes back.
    public enum OnUp: String, Sendable, CaseIterable {
        case keep
        case endBackup = "end_backup"
    }

    /// The values of the block's lines.
    public struct Values: Sendable {
        var probe = Probe.tcp
        /// Where to probe instead of the backend's own port and address; nil: there.
        var port: UInt16?
        var address: IPAddress?
        /// From the start of one probe of a backend to the next.
        var interval = TimeSpan.seconds(2)
        /// Each interval is longer or shorter by up to this many percent, 0...50.
        var jitterPercent: UInt8 = 10
        /// For the whole probe; nil: a second, or the interval if that is shorter.
        var timeout: TimeSpan?
        /// Good probes in a row that bring a backend back.
        var rise: UInt32 = 2
        /// Failed probes in a row that take it out.
        var fall: UInt32 = 3
        /// The most probes started a second, over all backends of this block.
        var probesPerSecond: UInt32 = 1000
        var onDown = OnDown.keep
        var onUp = OnUp.keep
        var panic = Panic.failFast
        /// `after` is 0 if connect failures eject no backend.
        var ejection = EjectionPolicy.standard

        var wholeTimeout: TimeSpan { timeout ?? min(.seconds(1), interval) }
    }

    public let name: String
    public let values: Values
    /// Never null.
    public let ejection: UnsafePointer<EjectionPolicy>

    public var probe: Probe { values.probe }
    /// It probes something else than backends themselves, which knows nothing of our PROXY headers.
    public var probesElsewhere: Bool { values.port != nil || values.address != nil }
    /// Where a backend is probed.
    public func place(of backend: Endpoint) -> Endpoint {
        // Of a Unix socket, `port` alone or `address` alone says no other place.
        guard !backend.isUnixSocket || (values.address != nil && values.port != nil) else { return backend }
        return Endpoint(values.address ?? backend.address, values.port ?? backend.port)
    }
    public var interval: TimeSpan { values.interval }
    public var jitterPercent: UInt8 { values.jitterPercent }
    public var timeout: TimeSpan { values.wholeTimeout }
    public var rise: UInt32 { values.rise }
    public var fall: UInt32 { values.fall }
    public var probesPerSecond: UInt32 { values.probesPerSecond }
    public var onDown: OnDown { values.onDown }
    public var onUp: OnUp { values.onUp }
    public var panic: Panic { values.panic }

    init(_ name: String, _ values: Values) {
        self.name = name
        self.values = values
        let memory = UnsafeMutablePointer<EjectionPolicy>.allocate(capacity: 1)
        memory.initialize(to: values.ejection)
        self.ejection = UnsafePointer(memory)
    }

    /// - Parameter timeout: for the whole probe.
    public convenience init(
        name: String, probe: Probe, interval: TimeSpan, jitterPercent: UInt8, timeout: TimeSpan, rise: UInt32,
        fall: UInt32, probesPerSecond: UInt32, panic: Panic, ejection: EjectionPolicy
    ) {
        self.init(
            name,
            Values(
                probe: probe, interval: interval, jitterPercent: jitterPercent, timeout: timeout, rise: rise,
                fall: fall,
                probesPerSecond: probesPerSecond, panic: panic, ejection: ejection))
    }

    deinit { ejection.deallocate() }
}
