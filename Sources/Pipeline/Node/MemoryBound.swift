import CLinux
import Pipeline
import PipelineHost

/// This node's memory limit and use, as counted for its limiting cgroup, socket buffers included; without one, for the
/// machine (R27).
package struct MemoryBound {
    package struct Reading: Equatable {
        /// What the cgroup or the machine allows; 0: not known.
        var allowed: UInt64 = 0
        package var used: UInt64 = 0

        /// The limit in bytes; 0: not known, and no limit.
        func bound(_ setting: MemorySetting) -> UInt64 {
            switch setting {
            case .bytes(let bytes): bytes
            case .percent(let percent): allowed / 100 &* UInt64(percent) &+ allowed % 100 &* UInt64(percent) / 100
            }
        }
    }

    /// Where `/proc` and `/sys` are: tests have their own.
    private let root: String

    /// The directories of this process's cgroups, from its own up to the root. Read once: a service manager assigns the
    /// cgroup before the process starts.
    private let folders: [String]
    private let isSecondVersion: Bool

    init(root: String = "") {
        self.root = root
        (folders, isSecondVersion) = MemoryBound.cgroups(root)
    }

    /// - Parameter connections: of this node, which bound its share of socket buffers.
    func read(connections: UInt64 = .max) -> Reading {
        let machine = Reading(allowed: field("/proc/meminfo", "MemTotal:") &* 1024, used: 0)
        var least = Reading()
        for folder in folders {
            guard let one = isSecondVersion ? second(folder) : first(folder), one.allowed > 0 else { continue }
            guard machine.allowed == 0 || one.allowed < machine.allowed else { continue }
            if least.allowed == 0 || one.allowed < least.allowed { least = one }
        }
        if least.allowed > 0 { return least }
        return Reading(allowed: machine.allowed, used: ownUse(connections))
    }

    // MARK: The machine

    /// Its own pages, plus the machine's TCP memory, at most what the sockets of `connections` can hold: an upper
    /// bound, since the kernel does not report the exact part.
    private func ownUse(_ connections: UInt64) -> UInt64 {
        let own = field("/proc/self/status", "RssAnon:") &* 1024
        let (most, isMore) = connections.multipliedReportingOverflow(by: 2 &* socketLimit())
        return own &+ min(socketPages() &* 4096, isMore ? .max : most)
    }

    /// What one socket may hold, both ways, by the third numbers of `tcp_rmem` and `tcp_wmem`; not known: no limit.
    private func socketLimit() -> UInt64 {
        var sum: UInt64 = 0
        for name in ["tcp_rmem", "tcp_wmem"] {
            let words = lines("/proc/sys/net/ipv4/" + name).first?.split { $0 == "\t" || $0 == " " } ?? []
            guard words.count == 3, let most = UInt64(words[2]), most < 1 << 40 else { return .max / 4 }
            // The kernel's own structures around the bytes may double a receive buffer.
            sum += 2 * most
        }
        return sum
    }

    /// `TCP: inuse 5 orphan 0 tw 0 alloc 7 mem 3`
    private func socketPages() -> UInt64 {
        let line = lines("/proc/net/sockstat").first { $0.hasPrefix("TCP:") } ?? ""
        let words = line.split(separator: " ")
        guard let place = words.firstIndex(of: "mem"), place + 1 < words.count else { return 0 }
        return UInt64(words[place + 1]) ?? 0
    }

    // MARK: cgroups

    private static func cgroups(_ root: String) -> (folders: [String], isSecondVersion: Bool) {
        let lines = Files.lines(root + "/proc/self/cgroup")
        for line in lines {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3, parts[1].split(separator: ",").contains("memory") else { continue }
            return (walk("/sys/fs/cgroup/memory", String(parts[2])), false)
        }
        guard let line = lines.first(where: { $0.hasPrefix("0::") }) else { return ([], true) }
        return (walk("/sys/fs/cgroup", String(line.dropFirst(3))), true)
    }

    private static func walk(_ mount: String, _ path: String) -> [String] {
        var folders: [String] = []
        var parts = path.split(separator: "/").map(String.init)
        // A namespace may not show what is above it.
        if parts.contains("..") { parts = [] }
        while true {
            folders.append(([mount] + parts).joined(separator: "/"))
            guard !parts.isEmpty else { return folders }
            parts.removeLast()
        }
    }

    /// v2: includes socket buffers; of page cache only the unreclaimable part counts.
    private func second(_ folder: String) -> Reading? {
        guard let allowed = number(folder + "/memory.max"), let used = number(folder + "/memory.current") else {
            return nil
        }
        let files = field(folder + "/memory.stat", "inactive_file") &+ field(folder + "/memory.stat", "active_file")
        return Reading(allowed: allowed, used: used > files ? used - files : 0)
    }

    /// v1: socket buffers are counted separately.
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

    private func lines(_ path: String) -> [Substring] { Files.lines(root + path) }

    /// Nil: there is none, or it says `max`.
    private func number(_ path: String) -> UInt64? {
        guard let bytes = try? Files.read(root + path, limit: 1 << 20) else { return nil }
        return bytes.withUnsafeBufferPointer { MemoryBound.number($0, from: 0) }
    }

    /// 0: there is no such line.
    private func field(_ path: String, _ name: StaticString) -> UInt64 {
        guard let bytes = try? Files.read(root + path, limit: 1 << 20) else { return 0 }
        return bytes.withUnsafeBufferPointer { MemoryBound.field($0, name) } ?? 0
    }

    // Runs every second, and more often when memory is short: parses bytes in place, without thousands of string
    // allocations.

    private static func field(_ text: UnsafeBufferPointer<UInt8>, _ name: StaticString) -> UInt64? {
        let count = name.utf8CodeUnitCount
        var start = 0
        while start + count < text.count {
            var same = 0
            while same < count, text[start + same] == name.utf8Start[same] { same += 1 }
            if same == count, isBlank(text[start + count]) { return number(text, from: start + count) }
            while start < text.count, text[start] != UInt8(ascii: "\n") { start += 1 }
            start += 1
        }
        return nil
    }

    private static func isBlank(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }

    /// The decimal number that stands there, behind blanks; nil: none, or one that doesn't fit.
    private static func number(_ text: UnsafeBufferPointer<UInt8>, from start: Int) -> UInt64? {
        var place = start
        while place < text.count, isBlank(text[place]) { place += 1 }
        var value: UInt64?
        while place < text.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(text[place]) {
            let (product, isTooLarge) = (value ?? 0).multipliedReportingOverflow(by: 10)
            let (sum, isTooLargeByDigit) = product.addingReportingOverflow(UInt64(text[place] &- UInt8(ascii: "0")))
            guard !isTooLarge, !isTooLargeByDigit else { return nil }
            value = sum
            place += 1
        }
        return value
    }
}

/// Checks memory use, and tells workers when it becomes short and when it recovers.
package struct MemoryWatch {
    /// Memory may fill as fast as a gigabyte a second: the next check comes before the rest can be used up.
    private static let soonest = TimeSpan.milliseconds(10)
    private static let soonestWhileShort = TimeSpan.milliseconds(50)
    private static let latest = TimeSpan.seconds(1)

    private let source: MemoryBound
    private(set) var nextLook = Instant(nanoseconds: 0)
    package private(set) var reading = MemoryBound.Reading()
    package private(set) var isShort = false

    init(_ source: MemoryBound = MemoryBound()) { self.source = source }

    package func bound(_ setting: MemorySetting) -> UInt64 { reading.bound(setting) }

    /// - Returns: true if ``isShort`` has changed.
    mutating func look(_ setting: MemorySetting, connections: UInt64 = .max, _ now: Instant) -> Bool {
        guard nextLook <= now else { return false }
        reading = source.read(connections: connections)
        let bound = bound(setting)
        let before = isShort
        // With hysteresis between the two thresholds.
        isShort = bound > 0 && reading.used > bound / 100 &* (before ? 85 : 90)
        nextLook = now + pause(bound / 100 &* 90)
        return isShort != before
    }

    private func pause(_ limit: UInt64) -> TimeSpan {
        guard limit > 0 else { return MemoryWatch.latest }
        let soonest = isShort ? MemoryWatch.soonestWhileShort : MemoryWatch.soonest
        // At a gigabyte a second, a byte is a nanosecond.
        let left = TimeSpan(nanoseconds: reading.used < limit ? limit - reading.used : 0)
        return min(max(left, soonest), MemoryWatch.latest)
    }
}
