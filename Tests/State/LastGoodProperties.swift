import CLinux
import Pipeline
import PipelineState

/// What must hold of a store whatever its files say: it is opened or refused, nothing traps, what was mended stays so,
/// and it goes on.
///
/// Input: a byte of flags (1: checksums are made right, so that what is behind them is reached), then files, each a byte
/// that names it, two of its length, and its bytes.
enum LastGoodProperties {
    private static let names = [
        "lock", "snapshot.1", "snapshot.2", "log.1", "log.2", "log.3", "snapshot.3.new", "log.02",
    ]

    static func violation(_ bytes: UnsafeBufferPointer<UInt8>) -> String? {
        guard let flags = bytes.first else { return nil }
        let disk = MemoryDisk(files(bytes.dropFirst(), isMended: flags & 1 != 0))
        let first: [[UInt8]]
        do {
            guard let store = open(disk) else { return nil }
            first = read(store)
        }
        do {
            guard let again = open(disk) else { return "what was opened is refused" }
            if !again.notices.isEmpty { return "not mended: \(again.notices.map(\.text))" }
            if read(again) != first { return "the second opening holds something else" }
            if let problem = goOn(again.store) { return problem }
        }
        guard let last = open(disk) else { return "what was written is refused" }
        if !last.notices.isEmpty { return "what was written is mended: \(last.notices.map(\.text))" }
        return has(last.store, "after") ? nil : "a change is gone"
    }

    private typealias Opened = (store: StateStore, notices: [StateNotice])

    private static func open(_ disk: MemoryDisk) -> Opened? {
        var settings = StateSettings()
        settings.reserveBytes = 0
        settings.hasThread = false
        let place = StatePlace(directory: "store", disk: disk, settings: settings)
        return try? StateStore.open(place, seed: { Array(1...16) })
    }

    /// All records, as bytes.
    private static func read(_ opened: Opened) -> [[UInt8]] {
        var all: [[UInt8]] = [opened.store.secret]
        for kind in [1, 2, 3, 255] as [UInt8] {
            all.append([kind])
            opened.store.forEach(kind) { id, value in
                all.append(Array(id) + [0] + Array(value))
                _ = opened.store.value(kind, id)
            }
        }
        return all
    }

    private static func has(_ store: StateStore, _ id: String) -> Bool {
        Array(id.utf8).withUnsafeBufferPointer { store.value(1, $0) != nil }
    }

    private static func goOn(_ store: StateStore) -> String? {
        var batch = StateBatch()
        batch.put(1, "after".utf8, UnsafeRawBufferPointer(start: nil, count: 0))
        do throws(StateFault) {
            try store.append(batch, durably: true)
            try store.beginCompaction()
        } catch { return "it does not go on: \(error.message)" }
        guard store.adoptCompaction()?.event == "state_compacted" else { return "it is not compacted" }
        return has(store, "after") ? nil : "a change is gone from the snapshot"
    }

    // MARK: Files

    private static func files(_ bytes: Slice<UnsafeBufferPointer<UInt8>>, isMended: Bool) -> [String: [UInt8]] {
        var files: [String: [UInt8]] = [:]
        var rest = bytes
        while rest.count >= 3 {
            let head = Array(rest.prefix(3))
            let length = Int(head[1]) | Int(head[2]) << 8
            rest = rest.dropFirst(3)
            let name = names[Int(head[0]) % names.count]
            var file = Array(rest.prefix(length))
            rest = rest.dropFirst(length)
            if isMended, name.hasPrefix("snapshot") { mendSnapshot(&file) }
            if isMended, name.hasPrefix("log") { mendLog(&file) }
            files[name] = file
        }
        return files
    }

    private static func sum(_ bytes: ArraySlice<UInt8>, after crc: UInt32 = 0) -> UInt32 {
        bytes.withUnsafeBytes { cl_crc32c(crc, $0.baseAddress, $0.count) }
    }

    private static func put(_ value: UInt32, _ bytes: inout [UInt8], at offset: Int) {
        withUnsafeBytes(of: value.littleEndian) { bytes.replaceSubrange(offset..<(offset + 4), with: $0) }
    }

    private static func number(_ bytes: [UInt8], at offset: Int) -> Int {
        bytes[offset..<(offset + 4)].reversed().reduce(0) { $0 << 8 | Int($1) }
    }

    /// One of a single block, as inputs are.
    private static func mendSnapshot(_ file: inout [UInt8]) {
        guard file.count >= 4096 else { return }
        if file.count >= 4100 {
            put(sum(file[4096..<(file.count - 4)]), &file, at: file.count - 4)
            put(sum(file[(file.count - 4)...]), &file, at: 80)
        }
        put(sum(file[..<4092]), &file, at: 4092)
    }

    private static func mendLog(_ file: inout [UInt8]) {
        guard file.count >= 64 else { return }
        put(sum(file[..<60]), &file, at: 60)
        let salt = sum(file[..<60])
        var offset = 64
        while offset + 32 <= file.count {
            let length = number(file, at: offset)
            guard length <= file.count - offset - 32 else { return }
            put(sum(file[(offset + 32)..<(offset + 32 + length)]), &file, at: offset + 24)
            let head = sum(file[offset..<(offset + 4)], after: salt)
            put(sum(file[(offset + 8)..<(offset + 32)], after: head), &file, at: offset + 4)
            offset += 32 + length
        }
    }
}
