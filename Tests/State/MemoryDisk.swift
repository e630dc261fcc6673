import Glibc
import Pipeline
import PipelineState

/// A disk in memory that keeps apart what a process sees and what a crash of the machine leaves: of changes since the
/// last sync any may be lost, in any combination, and a write in any part.
///
/// Counts calls that change something. At one of them it can die (that call done in part, nothing after it), or fail.
final class MemoryDisk: Disk, @unchecked Sendable {
    final class File {
        var bytes: [UInt8] = []
        fileprivate(set) var durable: [UInt8] = []
        fileprivate var changes: Int64 = 0
        fileprivate var pending: [Change] = []

        /// What an earlier one that failed has lost stays lost.
        fileprivate func sync() {
            for change in pending { change.apply(to: &durable) }
            pending = []
        }
    }

    enum Change {
        case write(Int, [UInt8])
        case resize(Int)

        func apply(to bytes: inout [UInt8]) {
            switch self {
            case .write(let offset, let new):
                if bytes.count < offset + new.count {
                    bytes.append(contentsOf: repeatElement(0, count: offset + new.count - bytes.count))
                }
                bytes.replaceSubrange(offset..<(offset + new.count), with: new)
            case .resize(let size):
                if size < bytes.count { bytes.removeLast(bytes.count - size) }
                bytes.append(contentsOf: repeatElement(0, count: size - bytes.count))
            }
        }
    }

    private enum NameChange {
        case link(String, File)
        case rename(String, String)
        case remove(String)

        func apply(to names: inout [String: File]) {
            switch self {
            case .link(let name, let file): names[name] = file
            case .rename(let from, let to):
                if let file = names.removeValue(forKey: from) { names[to] = file }
            case .remove(let name): names[name] = nil
            }
        }
    }

    private(set) var files: [String: File] = [:]
    private var durableFiles: [String: File] = [:]
    private var pendingNames: [NameChange] = []
    private var handles: [Int32: File] = [:]
    private var nextHandle: Int32 = 3
    private let folder = File()
    /// By handle.
    private var locks: [Int32: File] = [:]
    private var random: SplitMix64

    /// Calls so far that change something.
    private(set) var calls = 0
    /// The call at which it dies.
    var dieAt = Int.max
    private(set) var isDead = false
    /// An error for a call, if it is to fail.
    var failing: (_ call: Int) -> Int32? = { _ in nil }
    /// What a look at a file finds in place of what there is.
    var deceiving: (_ name: String, _ status: inout DiskStatus) -> Void = { _, _ in }
    var modes: [String: UInt32] = [:]
    var strangers: Set<String> = []
    var free = Int.max

    init(seed: UInt64 = 0) { random = SplitMix64(seed: seed) }

    init(_ files: [String: [UInt8]]) {
        random = SplitMix64(seed: 0)
        for (name, bytes) in files {
            let file = File()
            file.bytes = bytes
            file.durable = bytes
            self.files[name] = file
        }
        durableFiles = self.files
    }

    var contents: [String: [UInt8]] { files.mapValues(\.bytes) }

    // MARK: Crashes

    /// What the process that died leaves: all that it had written.
    func afterKill() -> MemoryDisk { MemoryDisk(contents) }

    /// What the machine that died leaves.
    func afterCrash() -> MemoryDisk {
        var names = durableFiles
        for change in pendingNames where random.below(2) == 0 { change.apply(to: &names) }
        return MemoryDisk(names.mapValues { remains(of: $0) })
    }

    private func remains(of file: File) -> [UInt8] {
        var bytes = file.durable
        for change in file.pending where random.below(2) == 0 { partly(change).apply(to: &bytes) }
        return bytes
    }

    /// All of it, or of a write its beginning or its end.
    private func partly(_ change: Change) -> Change {
        guard case .write(let offset, let bytes) = change, random.below(2) == 0 else { return change }
        let place = random.below(bytes.count + 1)
        return random.below(2) == 0
            ? .write(offset, Array(bytes[..<place])) : .write(offset + place, Array(bytes[place...]))
    }

    /// nil: go on. A call that dies has been done in part, or whole, or not.
    private func step(_ part: (_ isWhole: Bool) -> Void = { _ in }) -> Int32? {
        if isDead { return -EIO }
        defer { calls += 1 }
        if calls == dieAt {
            isDead = true
            part(random.below(2) == 0)
            return -EIO
        }
        return failing(calls).map { -$0 }
    }

    // MARK: Disk

    private func name(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }
    private func isDirectory(_ path: String) -> Bool { path.split(separator: "/").count < 2 }

    func status(_ path: String, _ status: inout DiskStatus) -> Int32 {
        if isDead { return -EIO }
        let name = name(path)
        status.isOurs = !strangers.contains(name)
        status.links = 1
        if isDirectory(path) {
            status.kind = .directory
            status.mode = modes[name] ?? 0o700
            return 0
        }
        guard let file = files[name] else { return -ENOENT }
        fill(&status, file)
        status.mode = modes[name] ?? 0o600
        deceiving(name, &status)
        return 0
    }

    func status(of file: Int32, _ status: inout DiskStatus) -> Int32 {
        guard !isDead, let file = handles[file] else { return -EIO }
        fill(&status, file)
        status.links = files.values.contains { $0 === file } ? 1 : 0
        return 0
    }

    private func fill(_ status: inout DiskStatus, _ file: File) {
        status.kind = .file
        status.size = file.bytes.count
        status.identity.inode = UInt64(UInt(bitPattern: ObjectIdentifier(file)))
        status.modified = file.changes
    }

    func hasLost(_ memory: UnsafeRawPointer) -> Bool { false }

    func makeDirectory(_ path: String) -> Int32 { isDead ? -EIO : -EEXIST }
    func openDirectory(_ path: String) -> Int32 { isDead ? -EIO : handle(folder) }

    func setMode(_ path: String, _ mode: UInt32) -> Int32 {
        if let failed = step({ if $0 { self.modes[self.name(path)] = mode } }) { return failed }
        modes[name(path)] = mode
        return 0
    }

    func names(in directory: String, _ names: inout [String]) -> Int32 {
        names = Array(files.keys)
        return isDead ? -EIO : 0
    }

    func syncDirectory(_ path: String) -> Int32 {
        if let failed = step() { return failed }
        durableFiles = files
        pendingNames = []
        return 0
    }

    func freeBytes(_ path: String) -> Int { free }

    func open(_ path: String, _ mode: DiskOpening) -> Int32 {
        let name = name(path)
        if mode == .read || mode == .write || files[name] != nil && mode == .make {
            if isDead { return -EIO }
            guard let file = files[name] else { return -ENOENT }
            return handle(file)
        }
        if let failed = step({ if $0 { self.make(name) } }) { return failed }
        return handle(make(name))
    }

    @discardableResult private func make(_ name: String) -> File {
        if let file = files[name] {
            change(file, .resize(0))
            return file
        }
        let file = File()
        change(.link(name, file))
        return file
    }

    private func handle(_ file: File) -> Int32 {
        nextHandle += 1
        handles[nextHandle] = file
        return nextHandle
    }

    private func change(_ file: File, _ change: Change) {
        change.apply(to: &file.bytes)
        file.changes += 1
        file.pending.append(change)
    }

    private func change(_ change: NameChange) {
        change.apply(to: &files)
        pendingNames.append(change)
    }

    func close(_ file: Int32) {
        handles[file] = nil
        locks[file] = nil
    }

    func lock(_ file: Int32) -> Int32 {
        guard !isDead, let found = handles[file] else { return -EIO }
        if locks.values.contains(where: { $0 === found }) { return -EWOULDBLOCK }
        locks[file] = found
        return 0
    }

    func read(_ file: Int32, _ buffer: UnsafeMutableRawBufferPointer, at offset: Int) -> Int {
        guard !isDead, let file = handles[file] else { return Int(-EIO) }
        let bytes = file.bytes.dropFirst(offset).prefix(buffer.count)
        buffer.copyBytes(from: bytes)
        return bytes.count
    }

    func write(_ file: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int32 {
        guard let file = handles[file] else { return -EBADF }
        let new = Change.write(offset, Array(bytes))
        let failed = step { self.change(file, $0 ? new : self.partly(new)) }
        if let failed {
            // A full disk takes the beginning.
            if !isDead { change(file, .write(offset, Array(bytes.prefix(random.below(bytes.count))))) }
            return failed
        }
        change(file, new)
        return 0
    }

    func resize(_ file: Int32, to size: Int) -> Int32 {
        guard let file = handles[file] else { return -EBADF }
        if let failed = step({ if $0 { self.change(file, .resize(size)) } }) { return failed }
        change(file, .resize(size))
        return 0
    }

    func allocate(_ file: Int32, from offset: Int, count: Int) -> Int32 {
        guard let found = handles[file] else { return -EBADF }
        return found.bytes.count < offset + count ? resize(file, to: offset + count) : 0
    }

    /// A failed one has written some of it, and the kernel takes all of it for written (fsyncgate).
    func sync(_ file: Int32) -> Int32 {
        guard let file = handles[file] else { return -EBADF }
        if let failed = step({ if $0 { file.sync() } }) {
            if !isDead {
                file.durable = remains(of: file)
                file.pending = []
            }
            return failed
        }
        file.sync()
        return 0
    }

    func map(_ file: Int32, size: Int, _ memory: inout UnsafeRawPointer?) -> Int32 {
        guard !isDead, let file = handles[file], file.bytes.count >= size else { return -EIO }
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
        copy.copyBytes(from: file.bytes.prefix(size))
        memory = UnsafeRawPointer(copy.baseAddress)
        return 0
    }

    func unmap(_ memory: UnsafeRawPointer, size: Int) { memory.deallocate() }

    func rename(_ path: String, to other: String) -> Int32 {
        let change = NameChange.rename(name(path), name(other))
        guard files[name(path)] != nil else { return isDead ? -EIO : -ENOENT }
        if let failed = step({ if $0 { self.change(change) } }) { return failed }
        self.change(change)
        modes[name(other)] = modes.removeValue(forKey: name(path))
        if strangers.remove(name(path)) != nil { strangers.insert(name(other)) }
        return 0
    }

    func remove(_ path: String) -> Int32 {
        let name = name(path)
        guard files[name] != nil else { return isDead ? -EIO : -ENOENT }
        if let failed = step({ if $0 { self.change(.remove(name)) } }) { return failed }
        change(.remove(name))
        return 0
    }
}
