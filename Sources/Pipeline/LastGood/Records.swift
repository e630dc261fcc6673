import Pipeline
import PipelineRouting
import PipelineState

/// The kinds of records in a node's store. Numbers stay: what was written by one version is read by the next.
enum RecordKind {
    /// Objects as they are desired: the numbers of ``StateKind``, 1...15.
    static func desired(_ kind: StateKind) -> UInt8 { kind.rawValue }
    /// How objects are applied, where that is not simply as desired: 17...31.
    static func applied(_ kind: StateKind) -> UInt8 { kind.rawValue + 16 }
    /// What is known of the last update: a text for each name.
    static let fact: UInt8 = 40
}

/// Desired objects as a store has them.
struct StoredObjects: DesiredObjects {
    let store: StateStore

    func text(_ kind: StateKind, _ id: Bytes) -> UnsafeRawBufferPointer? { store.value(RecordKind.desired(kind), id) }

    func forEach(_ kind: StateKind, _ body: (Bytes, UnsafeRawBufferPointer) -> Void) {
        store.forEach(RecordKind.desired(kind), body)
    }
}

/// How they are applied, as the store has it.
struct StoredApplied: AppliedObjects {
    let store: StateStore

    func visit(_ body: (StateKind, Bytes, AppliedObject) -> Void) {
        for kind in StateKind.allCases {
            store.forEach(RecordKind.applied(kind)) { id, value in
                if let object = AppliedObject(record: value) { body(kind, id, object) }
            }
        }
    }

    func find(_ kind: StateKind, _ id: Bytes) -> AppliedObject? {
        store.value(RecordKind.applied(kind), id).flatMap { AppliedObject(record: $0) }
    }
}

extension AppliedObject {
    private enum Tag {
        static let desired: UInt8 = 0
        static let nothing: UInt8 = 1
        static let text: UInt8 = 2
    }

    /// Tag, flags, the number of `holds` in two bytes, those, and the text.
    var record: [UInt8] {
        let (tag, text): (UInt8, [UInt8]) =
            switch version {
            case .desired: (Tag.desired, [])
            // Without its text it is nothing.
            case .earlier, .nothing: (Tag.nothing, [])
            case .text(let text): (Tag.text, text)
            }
        let count = UInt16(clamping: holds.count)
        return [tag, flags.rawValue, UInt8(count & 0xFF), UInt8(count >> 8)]
            + holds.prefix(Int(count)).map { $0 ? 1 : 0 } + text
    }

    /// Nil: a later version wrote it. What is not known counts as nothing: it is served for nobody.
    init?(record: UnsafeRawBufferPointer) {
        guard record.count >= 4 else { return nil }
        let count = Int(record[2]) | Int(record[3]) << 8
        guard record.count >= 4 + count else { return nil }
        let text = Array(record[(4 + count)...])
        let version: Version =
            switch record[0] {
            case Tag.desired: .desired
            case Tag.text: .text(text)
            default: .nothing
            }
        self.init(version, Flags(rawValue: record[1]), holds: record[4..<4 + count].map { $0 != 0 })
    }
}
