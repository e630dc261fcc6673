import CLinux
import Glibc

/// A disk on which nothing is changed: the files of a directory as they are, and in memory what is written over them.
/// For a look at a store that a node may have open, and for what a change would make of it.
///
/// Threading: one thread.
package final class ScratchDisk: Disk, @unchecked Sendable {
    private final class File {
        var bytes: [UInt8]
        init(_ bytes: [UInt8] = []) { self.bytes = bytes }

        func status(_ status: inout DiskStatus) {
            status.kind = .file
            status.size = bytes.count
            (status.mode, status.links, status.isOurs) = (0o600, 1, true)
            // No file of a disk has that device.
            status.identity.device = .max
            status.identity.inode = UInt64(UInt(bitPattern: ObjectIdentifier(self)))
        }
    }
    private enum Entry {
        case memory(File)
        /// A file of the real disk, under this path.
        case real(String)
        case gone
    }
    private enum Handle {
        case memory(File)
        case real(Int32)
    }

    private let real = LinuxDisk()
    /// Nothing of the real disk is there.
    private let isEmpty: Bool
    /// By path: what differs from the real disk.
    private var entries: [String: Entry] = [:]
    private var handles: [Int32: Handle] = [:]
    private var nextHandle: Int32 = 0
    /// Copies that were given out in place of mapped files.
    private var copies: Set<UnsafeRawPointer> = []

    package init(isEmpty: Bool = false) { self.isEmpty = isEmpty }

    deinit { for case .real(let file) in handles.values { real.close(file) } }

    private func find(_ path: String) -> Entry { entries[path] ?? (isEmpty ? .gone : .real(path)) }

    // MARK: Names

    /// Whose the files are does not matter to who only looks; whether others may write to them does.
    package func status(_ path: String, _ status: inout DiskStatus) -> Int32 {
        switch find(path) {
        case .memory(let file):
            file.status(&status)
            return 0
        case .real(let other):
            let failed = real.status(other, &status)
            status.isOurs = true
            return failed
        case .gone:
            guard isEmpty, entries[path] == nil else { return -ENOENT }
            status.kind = path.hasSuffix(ScratchDisk.name) ? .directory : .other
            (status.mode, status.links, status.isOurs) = (0o700, 1, true)
            return status.kind == .directory ? 0 : -ENOENT
        }
    }

    package func status(of file: Int32, _ status: inout DiskStatus) -> Int32 {
        switch handles[file] {
        case .real(let number)?:
            let failed = real.status(of: number, &status)
            status.isOurs = true
            return failed
        case .memory(let file)?:
            file.status(&status)
            return 0
        case nil: return -EBADF
        }
    }

    /// The directory of a store that is in memory alone.
    package static let name = "(in memory)"

    package func makeDirectory(_ path: String) -> Int32 { -EEXIST }
    package func openDirectory(_ path: String) -> Int32 { handle(.memory(File())) }
    package func setMode(_ path: String, _ mode: UInt32) -> Int32 { 0 }

    package func names(in directory: String, _ names: inout [String]) -> Int32 {
        if !isEmpty {
            let failed = real.names(in: directory, &names)
            guard failed >= 0 else { return failed }
        }
        let own = entries.filter { $0.key.hasPrefix(directory + "/") }
        names.removeAll { own["\(directory)/\($0)"] != nil }
        for (path, entry) in own {
            if case .gone = entry { continue }
            names.append(String(path.dropFirst(directory.count + 1)))
        }
        return 0
    }

    package func rename(_ path: String, to other: String) -> Int32 {
        let entry = find(path)
        if case .gone = entry { return -ENOENT }
        (entries[other], entries[path]) = (entry, .gone)
        return 0
    }

    package func remove(_ path: String) -> Int32 {
        if case .gone = find(path) { return -ENOENT }
        entries[path] = .gone
        return 0
    }

    package func syncDirectory(_ path: String) -> Int32 { 0 }
    package func freeBytes(_ path: String) -> Int { Int.max / 4 }

    // MARK: Files

    package func open(_ path: String, _ mode: DiskOpening) -> Int32 {
        let entry = find(path)
        switch (mode, entry) {
        case (.empty, _), (.make, .gone):
            let file = File()
            entries[path] = .memory(file)
            return handle(.memory(file))
        case (_, .memory(let file)): return handle(.memory(file))
        case (_, .gone): return -ENOENT
        case (.read, .real(let other)):
            // A log may be cut by the node that has it: a mapped page would be gone.
            if other.split(separator: "/").last?.hasPrefix("log.") ?? false { return load(other) }
            let file = real.open(other, .read)
            return file < 0 ? file : handle(.real(file))
        case (_, .real(let other)):
            // The lock is the node's.
            let file = path.hasSuffix("/lock") ? handle(.memory(File())) : load(other)
            if case .memory(let loaded)? = handles[file] { entries[path] = .memory(loaded) }
            return file == -ENOENT && mode == .make ? open(path, .empty) : file
        }
    }

    private func handle(_ handle: Handle) -> Int32 {
        nextHandle += 1
        handles[nextHandle] = handle
        return nextHandle
    }

    /// A copy of a real file.
    private func load(_ path: String) -> Int32 {
        var status = DiskStatus()
        let failed = real.status(path, &status)
        guard failed >= 0 else { return failed }
        let file = real.open(path, .read)
        guard file >= 0 else { return file }
        defer { real.close(file) }
        var bytes = [UInt8](repeating: 0, count: status.size)
        let count = bytes.withUnsafeMutableBytes { real.read(file, $0, at: 0) }
        guard count >= 0 else { return Int32(clamping: count) }
        bytes.removeLast(bytes.count - count)
        return handle(.memory(File(bytes)))
    }

    package func close(_ file: Int32) {
        if case .real(let number)? = handles.removeValue(forKey: file) { real.close(number) }
    }

    package func lock(_ file: Int32) -> Int32 { 0 }
    package func sync(_ file: Int32) -> Int32 { 0 }

    package func read(_ file: Int32, _ buffer: UnsafeMutableRawBufferPointer, at offset: Int) -> Int {
        switch handles[file] {
        case .real(let number)?: return real.read(number, buffer, at: offset)
        case .memory(let file)?:
            let bytes = file.bytes.dropFirst(offset).prefix(buffer.count)
            buffer.copyBytes(from: bytes)
            return bytes.count
        case nil: return Int(-EBADF)
        }
    }

    package func write(_ file: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int32 {
        guard case .memory(let file)? = handles[file] else { return -EBADF }
        let end = offset + bytes.count
        if file.bytes.count < end { file.bytes.append(contentsOf: repeatElement(0, count: end - file.bytes.count)) }
        file.bytes.withUnsafeMutableBytes {
            UnsafeMutableRawBufferPointer(rebasing: $0[offset..<end]).copyBytes(from: bytes)
        }
        return 0
    }

    package func resize(_ file: Int32, to size: Int) -> Int32 {
        guard case .memory(let file)? = handles[file] else { return -EBADF }
        if size < file.bytes.count { file.bytes.removeLast(file.bytes.count - size) }
        file.bytes.append(contentsOf: repeatElement(0, count: size - file.bytes.count))
        return 0
    }

    package func allocate(_ file: Int32, from offset: Int, count: Int) -> Int32 {
        guard case .memory(let found)? = handles[file] else { return -EBADF }
        return found.bytes.count < offset + count ? resize(file, to: offset + count) : 0
    }

    package func map(_ file: Int32, size: Int, _ memory: inout UnsafeRawPointer?) -> Int32 {
        switch handles[file] {
        case .real(let number)?: return real.map(number, size: size, &memory)
        case .memory(let file)?:
            guard file.bytes.count >= size else { return -EIO }
            let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
            copy.copyBytes(from: file.bytes.prefix(size))
            memory = UnsafeRawPointer(copy.baseAddress)
            if let memory { copies.insert(memory) }
            return 0
        case nil: return -EBADF
        }
    }

    package func unmap(_ memory: UnsafeRawPointer, size: Int) {
        if copies.remove(memory) != nil { memory.deallocate() } else { real.unmap(memory, size: size) }
    }

    package func hasLost(_ memory: UnsafeRawPointer) -> Bool { !copies.contains(memory) && real.hasLost(memory) }
}

extension StateStore {
    package var directoryName: String { directory }

    /// What a directory holds, as it would be opened, whoever has it open; an empty store without one. Nothing on disk
    /// is changed, now or by what is done to the store.
    /// - Returns: `notices` of what an opening would have done.
    package static func look(
        at directory: String?, endingAt last: UInt64? = nil, seed: () -> [UInt8]
    ) throws(StateFault) -> (store: StateStore, notices: [StateNotice]) {
        var settings = StateSettings()
        settings.reserveBytes = 0
        guard let directory else {
            return try open(
                StatePlace(directory: ScratchDisk.name, disk: ScratchDisk(isEmpty: true), settings: settings),
                seed: seed)
        }
        var attempts = 0
        while true {
            do throws(StateFault) {
                return try open(
                    StatePlace(directory: directory, disk: ScratchDisk(), settings: settings),
                    endingAt: last, seed: seed)
            } catch {
                // A node that has it replaces files: what was listed may be gone.
                attempts += 1
                guard case .failed(_, _, ENOENT) = error, attempts < 5 else { throw error }
            }
        }
    }
}
