import CLinux
import Glibc

/// What stands in a store's directory, by name. Others' files are none of ours.
struct StateFiles {
    private(set) var snapshots: [UInt64] = []
    private(set) var logs: [UInt64] = []
    /// What was being written when a process ended.
    private(set) var unfinished: [String] = []
    /// What was set aside, the oldest first.
    private(set) var aside: [String] = []
    private var hasHead = false

    /// The highest number of any of them.
    var last: UInt64 { max(snapshots.last ?? 0, logs.last ?? 0) }

    init(_ place: StatePlace) throws(StateFault) {
        var names: [String] = []
        let failed = place.disk.names(in: place.directory, &names)
        guard failed >= 0 else { throw StateFault.of(place.directory, "reading it", failed) }
        for name in names { sort(name) }
        snapshots.sort()
        logs.sort()
        aside.sort { Self.stamp($0) < Self.stamp($1) }
    }

    /// Whose they are.
    func check(_ place: StatePlace) throws(StateFault) {
        let head = hasHead ? [StateHead.name] : []
        for name in snapshots.map({ "snapshot.\($0)" }) + logs.map({ "log.\($0)" }) + unfinished + head {
            try place.checkFile(name)
        }
    }

    /// `20261130T050000Z`, or with a number behind it.
    private static func stamp(_ name: String) -> Substring {
        guard let mark = name.firstIndex(of: "-") else { return "" }
        let rest = name[name.index(after: mark)...]
        return rest.hasPrefix("aside-") ? rest.dropFirst("aside-".count) : rest
    }

    private mutating func sort(_ name: String) {
        if name == StateHead.name {
            hasHead = true
        } else if name.hasSuffix(".new"), Self.number(name.dropLast(4)) != nil {
            unfinished.append(name)
        } else if let (isLog, number) = Self.number(name[...]) {
            if isLog { logs.append(number) } else { snapshots.append(number) }
        } else if name.contains(".damaged-") || name.contains(".set-aside-"),
            name.hasPrefix("log.") || name.hasPrefix("snapshot.")
        {
            aside.append(name)
        }
    }

    /// `snapshot.7`, `log.7`, and nothing else that reads the same.
    private static func number(_ name: Substring) -> (isLog: Bool, UInt64)? {
        for (isLog, prefix) in [(false, "snapshot."), (true, "log.")] where name.hasPrefix(prefix) {
            let digits = name.dropFirst(prefix.count)
            guard let number = UInt64(digits), number > 0, number < 1 << 62, "\(number)" == digits else { return nil }
            return (isLog, number)
        }
        return nil
    }
}

extension StatePlace {
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

    func checkFile(_ name: String) throws(StateFault) {
        var status = DiskStatus()
        let failed = disk.status(path(name), &status)
        guard failed >= 0 else { throw StateFault.of(path(name), "looking at it", failed) }
        guard status.kind == .file else { throw .foreign(path: path(name), what: "it is no regular file") }
        guard status.links == 1 else {
            throw .foreign(path: path(name), what: "it has \(status.links) names (hard links)")
        }
        try check(path(name), status)
    }

    private func check(_ path: String, _ status: DiskStatus) throws(StateFault) {
        guard status.isOurs else { throw .foreign(path: path, what: "it belongs to another user") }
        guard status.mode & 0o077 == 0 else {
            throw .foreign(path: path, what: "others may use it: its mode is 0\(String(status.mode, radix: 8))")
        }
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
