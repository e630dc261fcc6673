import CLinux
import Glibc

/// What stands in a store's directory, by name. Others' files are none of ours.
struct StateFiles {
    private(set) var snapshots: [UInt64] = []
    private(set) var logs: [UInt64] = []
    /// Tables, which can be done without.
    private(set) var derived: [UInt64] = []
    /// What was being written when a process ended.
    private(set) var unfinished: [String] = []
    /// What was set aside, the oldest first.
    private(set) var aside: [String] = []
    /// The highest number of any of them.
    private(set) var last: UInt64 = 0

    init(_ place: StatePlace) throws(StateFault) {
        var names: [String] = []
        let failed = place.disk.names(in: place.directory, &names)
        guard failed >= 0 else { throw StateFault.of(place.directory, "reading it", failed) }
        for name in names { sort(name) }
        snapshots.sort()
        logs.sort()
        derived.sort()
        aside.sort { Self.stamp($0) < Self.stamp($1) }
        last = [snapshots.last, logs.last, derived.last].compactMap(\.self).max() ?? 0
    }

    /// Looks whose they are, and leaves out those that must not be used.
    /// - Returns: what was left out, and why.
    mutating func judge(
        _ place: StatePlace, _ notices: inout [StateNotice]
    ) throws(StateFault) -> [(name: String, why: String)] {
        let exposure = place.exposure
        var strange: [(name: String, why: String)] = []
        func own(
            _ numbers: [UInt64], _ prefix: String, _ notices: inout [StateNotice]
        ) throws(StateFault) -> [UInt64] {
            var own: [UInt64] = []
            for number in numbers {
                let name = "\(prefix).\(number)"
                if let why = try place.judge(name, exposure, &notices) {
                    strange.append((name, why))
                } else {
                    own.append(number)
                }
            }
            return own
        }
        snapshots = try own(snapshots, "snapshot", &notices)
        logs = try own(logs, "log", &notices)
        for name in unfinished + [StateHead.name] { try place.clear(name, exposure, &notices) }
        return strange
    }

    /// A file of a newer version is refused before anything is changed.
    func refuseNewer(_ place: StatePlace) throws(StateFault) {
        for number in snapshots { try place.refuseNewer("snapshot.\(number)", StateFormat.snapshotHeader) }
        for number in logs { try place.refuseNewer("log.\(number)", StateFormat.logHeader) }
    }

    private static let prefixes = ["snapshot.", "log.", "lock.", "reserve.", "\(StateHead.name)."]

    /// `20261130T050000Z`, or with a number behind it.
    private static func stamp(_ name: String) -> Substring {
        guard let mark = name.firstIndex(of: "-") else { return "" }
        let rest = name[name.index(after: mark)...]
        return rest.hasPrefix("aside-") ? rest.dropFirst("aside-".count) : rest
    }

    private mutating func sort(_ name: String) {
        if name.hasSuffix(".new"), Self.number(name.dropLast(4)) != nil || Self.derived(name.dropLast(4)) != nil {
            unfinished.append(name)
        } else if let number = Self.derived(name[...]) {
            derived.append(number)
        } else if let (isLog, number) = Self.number(name[...]) {
            if isLog { logs.append(number) } else { snapshots.append(number) }
        } else if name.contains(".damaged-") || name.contains(".set-aside-"),
            StateFiles.prefixes.contains(where: { name.hasPrefix($0) })
        {
            aside.append(name)
        }
    }

    /// The number of a snapshot; nil: it is another file.
    static func snapshot(_ name: String) -> UInt64? { number(name[...]).flatMap { $0.isLog ? nil : $0.1 } }

    /// `snapshot.7`, `log.7`, and nothing else that reads the same.
    private static func number(_ name: Substring) -> (isLog: Bool, UInt64)? {
        for (isLog, prefix) in [(false, "snapshot."), (true, "log.")] {
            if let number = number(name, behind: prefix) { return (isLog, number) }
        }
        return nil
    }

    /// The number of a table; nil: it is another file.
    private static func derived(_ name: Substring) -> UInt64? { number(name, behind: "table.") }

    private static func number(_ name: Substring, behind prefix: String) -> UInt64? {
        guard name.hasPrefix(prefix) else { return nil }
        let digits = name.dropFirst(prefix.count)
        guard let number = UInt64(digits), number > 0, number < 1 << 62, "\(number)" == digits else { return nil }
        return number
    }
}

extension StatePlace {
    fileprivate func refuseNewer(_ name: String, _ headerBytes: Int) throws(StateFault) {
        let path = path(name)
        let file = disk.open(path, .read)
        guard file >= 0 else {
            if file == -EIO { return }
            throw StateFault.of(path, "opening it", file)
        }
        defer { disk.close(file) }
        var header = [UInt8](repeating: 0, count: headerBytes)
        let count = header.withUnsafeMutableBytes { disk.read(file, $0, at: 0) }
        guard count == headerBytes else { return }
        let version = header.withUnsafeBytes { StateFormat.newerVersion($0) }
        if let version { throw .newer(path: path, version: version) }
    }

    /// Makes the directory if there is none, and looks whose it is.
    /// - Returns: what others may do there; it is no reason not to read what is kept.
    func checkDirectory() throws(StateFault) -> StateExposure {
        guard !directory.isEmpty, !directory.utf8.contains(0) else {
            throw .unfit(what: "a path for the store that is empty, or has a NUL")
        }
        let made = disk.makeDirectory(directory)
        guard made >= 0 || made == -EEXIST else { throw StateFault.of(directory, "making the directory", made) }
        // That a directory was made is durable with its parent; one that has none of its own is the working directory's.
        if made >= 0 { _ = disk.syncDirectory(directory.lastIndex(of: "/").map { String(directory[...$0]) } ?? ".") }
        var status = DiskStatus()
        let failed = disk.status(directory, &status)
        guard failed >= 0 else { throw StateFault.of(directory, "looking at it", failed) }
        guard status.kind == .directory else { throw .foreign(path: directory, what: "it is no directory") }
        guard status.isOurs else { throw .foreign(path: directory, what: "it belongs to another user") }
        return StateExposure(status.mode)
    }

    /// What others may do in the directory by now.
    var exposure: StateExposure {
        var status = DiskStatus()
        guard disk.status(directory, &status) >= 0, status.kind == .directory, status.isOurs else { return .written(0) }
        return StateExposure(status.mode)
    }

    /// `log.7.damaged-20261130T050000Z`, or with a number behind it.
    /// - Parameter what: why it is set aside.
    func freeName(_ name: String, _ what: String = "damaged") throws(StateFault) -> String {
        var stamp = [CChar](repeating: 0, count: 17)
        cl_utc_stamp(Int64(clamping: cl_wall_clock() / 1_000_000_000), &stamp)
        let text = String(decoding: stamp.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let aside = "\(name).\(what)-\(text)"
        for count in 1...1000 {
            let candidate = count == 1 ? aside : "\(aside)-\(count)"
            var status = DiskStatus()
            if disk.status(path(candidate), &status) == -ENOENT { return candidate }
        }
        throw .failed(path: path(aside), doing: "finding a free name", error: EEXIST)
    }
}
