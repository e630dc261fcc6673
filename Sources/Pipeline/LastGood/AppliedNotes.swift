import Pipeline
import PipelineRouting
import PipelineState

/// How objects are applied, as one report after the other says, until it is kept.
struct AppliedNotes {
    private let store: StateStore
    private var objects: [StateKind: [String: AppliedObject]] = [:]

    init(_ store: StateStore) { self.store = store }

    var isEmpty: Bool { objects.values.allSatisfy(\.isEmpty) }

    private func stored(_ kind: StateKind, _ id: String) -> AppliedObject? {
        var id = id
        return id.withUTF8 { StoredApplied(store: store).find(kind, $0) }
    }

    mutating func take(_ report: ApplyReport) {
        if report.isWhole { forgetOthers(report) }
        for (kind, noted) in report.applied {
            for (id, object) in noted { objects[kind, default: [:]][id] = resolved(object, kind, id) }
        }
    }

    /// The last version that was used, where a report says no more than that there is one.
    private func resolved(_ object: AppliedObject, _ kind: StateKind, _ id: String) -> AppliedObject {
        guard object.version == .earlier else { return object }
        let known = objects[kind]?[id] ?? stored(kind, id)
        var object = object
        object.version = known.flatMap { $0.version == .desired ? nil : $0.version } ?? .nothing
        return object
    }

    private mutating func forgetOthers(_ report: ApplyReport) {
        for kind in StateKind.allCases {
            let noted = report.applied[kind] ?? [:]
            for id in (objects[kind] ?? [:]).keys where noted[id] == nil { objects[kind]?[id] = AppliedObject() }
            store.forEach(RecordKind.applied(kind)) { id, _ in
                let id = String(decoding: id, as: UTF8.self)
                if noted[id] == nil { objects[kind, default: [:]][id] = AppliedObject() }
            }
        }
    }

    /// These are about to be desired otherwise: what was applied as desired is the version that they have now.
    mutating func willChange(_ touched: TouchedObjects) {
        for (kind, ids) in touched.ids {
            guard objects[kind] != nil else { continue }
            for id in ids {
                let name = String(decoding: id, as: UTF8.self)
                guard let noted = objects[kind]?[name], noted.version == .desired else { continue }
                let text = id.withUnsafeBufferPointer { store.value(RecordKind.desired(kind), $0) }
                objects[kind]?[name] = AppliedObject(text.map { .text(Array($0)) } ?? .nothing, noted.flags)
            }
        }
    }

    func put(_ batch: inout StateBatch) {
        for (kind, noted) in objects {
            for (id, object) in noted {
                let known = stored(kind, id)
                if !object.isPlain {
                    guard object != known else { continue }
                    object.record.withUnsafeBytes { batch.put(RecordKind.applied(kind), id.utf8, $0) }
                } else if known != nil {
                    batch.delete(RecordKind.applied(kind), id.utf8)
                }
            }
        }
    }
}
