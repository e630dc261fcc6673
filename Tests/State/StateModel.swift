import Pipeline
import Testing

@testable import PipelineState

/// What a store should hold.
typealias Contents = [StateKey: [UInt8]]

/// Changes of one batch: nil deletes.
typealias Changes = [(key: StateKey, value: [UInt8]?)]

let testSecret: [UInt8] = Array(1...16)

extension StateKey {
    init(_ kind: UInt8, _ id: String) { self.init(kind: kind, id: Array(id.utf8)) }
}

extension StateStore {
    /// On a disk of a test; a compaction is done when it is begun.
    static func open(
        _ disk: any Disk, reserve: Int = 0, leastLog: Int = 200
    ) throws -> (store: StateStore, notices: [StateNotice]) {
        var settings = StateSettings()
        settings.reserveBytes = reserve
        settings.leastLog = leastLog
        settings.snapshotShare = 1
        settings.hasThread = false
        return try open(StatePlace(directory: "store", disk: disk, settings: settings), seed: { testSecret })
    }

    func append(_ changes: Changes, durably: Bool = true) throws {
        try append(StateBatch(changes), durably: durably)
    }

    func group(_ batches: [Changes]) throws {
        let group = try makeGroup()
        for batch in batches { try group.stage(StateBatch(batch)) }
        try handOver(group)
        try endGroup()
        for index in 0..<group.count { group.takeEffect(index) }
    }

    func replaceAll(_ contents: Contents) throws {
        try replaceAll { writer throws(StateFault) in
            // In the order of a dictionary: any.
            for (key, value) in contents {
                var failure: StateFault?
                value.withUnsafeBytes { bytes in
                    do throws(StateFault) { try writer.put(key.kind, key.id, bytes) } catch { failure = error }
                }
                if let failure { throw failure }
            }
        }
    }

    func value(_ key: StateKey) -> [UInt8]? {
        key.id.withUnsafeBufferPointer { id in value(key.kind, id).map { Array($0) } }
    }

    /// All there is, by every way to ask for it, or what the ways disagree about.
    func read() -> (contents: Contents, flaw: String?) {
        var contents: Contents = [:]
        var flaw: String?
        for kind in [1, 2, 3, 9, 255] as [UInt8] {
            var last: [UInt8] = []
            var count = 0
            forEach(kind) { id, value in
                let key = StateKey(kind: kind, id: Array(id))
                if count > 0, !last.lexicographicallyPrecedes(key.id) { flaw = "out of order: \(key)" }
                if UInt(bitPattern: value.baseAddress) % 8 != 0 { flaw = "not aligned: \(key)" }
                last = key.id
                count += 1
                contents[key] = Array(value)
            }
            if count != self.count(kind) { flaw = "\(count) of kind \(kind), not \(self.count(kind))" }
        }
        for (key, value) in contents where self.value(key) != value { flaw = "not found: \(key)" }
        if self.value(StateKey(1, "nobody")) != nil { flaw = "found nobody" }
        if figures.records != contents.count { flaw = "\(figures.records) records" }
        return (contents, flaw)
    }
}

extension StateBatch {
    init(_ changes: Changes) {
        self.init()
        for (key, value) in changes {
            if let value { value.withUnsafeBytes { put(key.kind, key.id, $0) } } else { delete(key.kind, key.id) }
        }
    }
}

func applying(_ changes: Changes, to contents: Contents) -> Contents {
    var contents = contents
    apply(changes, to: &contents)
    return contents
}

/// Without a copy: for thousands of them.
func apply(_ changes: Changes, to contents: inout Contents) {
    for (key, value) in changes { contents[key] = value }
}

/// A store and what it may hold after a crash: what it held at some moment since the last change that was durable, or
/// what a change that failed would have made of it.
final class CheckedStore {
    private(set) var store: StateStore?
    private(set) var now: Contents = [:]
    /// What a crash of the machine may leave.
    private(set) var possible: [Contents] = [[:]]

    init(_ disk: any Disk, reserve: Int = 0) throws { store = try StateStore.open(disk, reserve: reserve).store }

    func append(_ changes: Changes, durably: Bool) throws {
        let after = applying(changes, to: now)
        possible.append(after)
        try store?.append(changes, durably: durably)
        done(after, isDurable: durably)
    }

    /// A crash under way leaves some of the first batches.
    func group(_ batches: [Changes]) throws {
        var after = now
        for batch in batches {
            after = applying(batch, to: after)
            possible.append(after)
        }
        try store?.group(batches)
        done(after, isDurable: true)
    }

    func replaceAll(_ contents: Contents) throws {
        possible.append(contents)
        try store?.replaceAll(contents)
        done(contents, isDurable: true)
    }

    func flush() throws {
        try store?.flush()
        possible = [now]
    }

    func compact() throws {
        try store?.beginCompaction()
        possible = [now]
    }

    func adopt() -> StateNotice? { store?.adoptCompaction() }

    func close() { store = nil }

    private func done(_ contents: Contents, isDurable: Bool) {
        now = contents
        if isDurable { possible = [contents] } else { possible.append(contents) }
    }

    /// What is wrong with what the store says by now.
    var flaw: String? {
        guard let (contents, flaw) = store?.read() else { return nil }
        return flaw ?? (contents == now ? nil : "it holds \(brief(contents)), not \(brief(now))")
    }
}

func brief(_ contents: Contents) -> String {
    contents.map { "\($0.key.kind):\(String(decoding: $0.key.id, as: UTF8.self))=\($0.value.prefix(3))" }.sorted()
        .joined(separator: " ")
}
