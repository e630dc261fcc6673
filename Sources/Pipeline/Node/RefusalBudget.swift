import Pipeline

/// The line budget of refused connections: a number of lines a second for each reason. Beyond that, one line a second
/// per reason has the count and the most frequent networks (R27). Counters include all; relayed connections are not
/// limited.
struct RefusalBudget {
    /// The refused connections of one reason and second without their own line.
    struct Summary {
        let reason: ReasonCode
        let count: UInt64
        /// Most first.
        let networks: [(network: IPAddress, count: UInt64)]
    }

    static let usual = NodeSettings().loggedRefusals
    private static let period = TimeSpan.seconds(1)
    private static let shownNetworks = 3

    private struct Window {
        var end: Instant
        var written = 0
        var left: UInt64 = 0
        var networks = FrequentNetworks()
    }

    var perSecond = RefusalBudget.usual
    /// Bounded by the number of reasons.
    private var windows: [ReasonCode: Window] = [:]
    /// Connections without their own line, since the start.
    private(set) var summed: UInt64 = 0

    /// When ``due(_:)`` may have something; nil: nothing is pending.
    var nextDue: Instant? { windows.values.lazy.filter { $0.left > 0 }.map(\.end).min() }

    /// True if the record gets a line.
    mutating func admits(_ record: ConnectionRecord, _ now: Instant) -> Bool {
        guard !record.isRelayed else { return true }
        var window = windows[record.reason] ?? Window(end: now + RefusalBudget.period)
        defer { windows[record.reason] = window }
        // One that has something to say waits for `due`.
        if window.end <= now, window.left == 0 { window = Window(end: now + RefusalBudget.period) }
        if window.written < perSecond {
            window.written += 1
            return true
        }
        window.left += 1
        summed += 1
        window.networks.add(record.client.address)
        return false
    }

    /// The seconds that are over and had more than their lines, by reason.
    mutating func due(_ now: Instant) -> [Summary] {
        var found: [Summary] = []
        for (reason, window) in windows where window.end <= now {
            windows[reason] = nil
            guard window.left > 0 else { continue }
            let top = window.networks.top(RefusalBudget.shownNetworks)
            found.append(Summary(reason: reason, count: window.left, networks: top))
        }
        return found.sorted { $0.reason.rawValue < $1.reason.rawValue }
    }

    /// What is left out so far, at the end.
    mutating func rest() -> [Summary] { due(Instant(nanoseconds: .max)) }
}

/// The most frequent networks (/64, /32), in bounded memory (Misra-Gries): counts are too low by at most one in
/// ``FrequentNetworks/room``.
struct FrequentNetworks {
    static let room = 64
    private var counts: [IPAddress: UInt64] = [:]

    mutating func add(_ address: IPAddress) {
        let network = address.network
        if counts[network] != nil || counts.count < FrequentNetworks.room {
            counts[network, default: 0] += 1
            return
        }
        // Costs as many additions as it takes back.
        counts = counts.compactMapValues { $0 > 1 ? $0 - 1 : nil }
    }

    func top(_ count: Int) -> [(network: IPAddress, count: UInt64)] {
        let sorted = counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
        return sorted.prefix(count).map { ($0.key, $0.value) }
    }
}
