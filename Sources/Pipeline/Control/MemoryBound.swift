import CLinux
import Pipeline

/// What this node may use of memory and what it uses, as the kernel counts it for the cgroup that bounds it, socket buffers
/// included; where none does, as the machine has it (R27).
struct MemoryBound {
    struct Reading: Equatable {
        /// What the cgroup or the machine allows; 0: not known.
        var allowed: UInt64 = 0
        var used: UInt64 = 0
    }

    /// Where `/proc` and `/sys` are: tests have their own.
    private let root: String

    init(root: String = "") { self.root = root }

    func read() -> Reading {
        let machine = Reading(allowed: field("/proc/meminfo", "MemTotal:") &* 1024, used: 0)
        let bounding = cgroups().filter { $0.allowed > 0 && (machine.allowed == 0 || $0.allowed < machine.allowed) }
        if let least = bounding.min(by: { $0.allowed < $1.allowed }) { return least }
        return Reading(allowed: machine.allowed, used: ownUse())
    }

    // MARK: The machine

    /// Its own pages, and what TCP holds on this machine: an upper bound of its own part of that.
    private func ownUse() -> UInt64 {
        let own = field("/proc/self/status", "RssAnon:") &* 1024
        return own &+ socketPages() &* 4096
    }

    /// `TCP: inuse 5 orphan 0 tw 0 alloc 7 mem 3`
    private func socketPages() -> UInt64 {
        let line = lines("/proc/net/sockstat").first { $0.hasPrefix("TCP:") } ?? ""
        let words = line.split(separator: " ")
        guard let place = words.firstIndex(of: "mem"), place + 1 < words.count else { return 0 }
        return UInt64(words[place + 1]) ?? 0
    }

    // MARK: cgroups

    /// One for each that this process is in, from its own up to the root.
    private func cgroups() -> [Reading] {
        for line in lines("/proc/self/cgroup") {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            if parts[1].split(separator: ",").contains("memory") {
                return walk("/sys/fs/cgroup/memory", String(parts[2]), first)
            }
        }
        guard let line = lines("/proc/self/cgroup").first(where: { $0.hasPrefix("0::") }) else { return [] }
        return walk("/sys/fs/cgroup", String(line.dropFirst(3)), second)
    }

    private func walk(_ mount: String, _ path: String, _ read: (String) -> Reading?) -> [Reading] {
        var readings: [Reading] = []
        var parts = path.split(separator: "/").map(String.init)
        // A namespace may not show what is above it.
        if parts.contains("..") { parts = [] }
        while true {
            if let reading = read(([mount] + parts).joined(separator: "/")) { readings.append(reading) }
            guard !parts.isEmpty else { return readings }
            parts.removeLast()
        }
    }

    /// v2: socket buffers are in it; of files only what can't be given back counts.
    private func second(_ folder: String) -> Reading? {
        guard let allowed = number(folder + "/memory.max"), let used = number(folder + "/memory.current") else {
            return nil
        }
        let files = field(folder + "/memory.stat", "inactive_file") &+ field(folder + "/memory.stat", "active_file")
        return Reading(allowed: allowed, used: used > files ? used - files : 0)
    }

    /// v1: socket buffers are beside it.
    private func first(_ folder: String) -> Reading? {
        guard let allowed = number(folder + "/memory.limit_in_bytes"),
            let used = number(folder + "/memory.usage_in_bytes")
        else { return nil }
        let stat = folder + "/memory.stat"
        let files = field(stat, "total_inactive_file") &+ field(stat, "total_active_file")
        let sockets = number(folder + "/memory.kmem.tcp.usage_in_bytes") ?? 0
        return Reading(allowed: allowed, used: (used > files ? used - files : 0) &+ sockets)
    }

    // MARK: Files

    private func lines(_ path: String) -> [Substring] {
        guard let bytes = try? Files.read(root + path, limit: 1 << 20) else { return [] }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n")
    }

    /// Nil: there is none, or it says `max`.
    private func number(_ path: String) -> UInt64? {
        lines(path).first.flatMap { UInt64($0) }
    }

    /// 0: there is no such line.
    private func field(_ path: String, _ name: String) -> UInt64 {
        for line in lines(path) {
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
            if words.count > 1, words[0] == name { return UInt64(words[1]) ?? 0 }
        }
        return 0
    }
}

/// Looks at what the node uses, and says to workers when it is too much and when no longer.
struct MemoryWatch {
    /// Memory may fill as fast as a gigabyte a second: what is left is looked at again before it can be gone.
    private static let soonest = TimeSpan.milliseconds(10)
    private static let soonestWhileShort = TimeSpan.milliseconds(50)
    private static let latest = TimeSpan.seconds(1)

    private let source: MemoryBound
    private(set) var nextLook = Instant(nanoseconds: 0)
    private(set) var reading = MemoryBound.Reading()
    private(set) var isShort = false

    init(_ source: MemoryBound = MemoryBound()) { self.source = source }

    /// What the setting comes to; 0: not known, and nothing is bounded.
    func bound(_ setting: MemorySetting) -> UInt64 {
        switch setting {
        case .bytes(let bytes): bytes
        case .percent(let percent):
            reading.allowed / 100 &* UInt64(percent) &+ reading.allowed % 100 &* UInt64(percent) / 100
        }
    }

    /// - Returns: true if ``isShort`` has changed.
    mutating func look(_ setting: MemorySetting, _ now: Instant) -> Bool {
        guard nextLook <= now else { return false }
        reading = source.read()
        let bound = bound(setting)
        let before = isShort
        // With a gap between the two, so that it does not go to and fro.
        isShort = bound > 0 && reading.used > bound / 100 &* (before ? 85 : 90)
        nextLook = now + pause(bound / 100 &* 90)
        return isShort != before
    }

    private func pause(_ limit: UInt64) -> TimeSpan {
        guard limit > 0 else { return MemoryWatch.latest }
        let soonest = isShort ? MemoryWatch.soonestWhileShort : MemoryWatch.soonest
        // A byte is a nanosecond.
        let left = TimeSpan(nanoseconds: reading.used < limit ? limit - reading.used : 0)
        return min(max(left, soonest), MemoryWatch.latest)
    }
}
