import Pipeline
import PipelineRouting
import PipelineState

/// The state before an update, made the newest again by what is written behind that update. What the update took from
/// somebody is not given back with it: its suspensions hold (R30), and an address that an env had by it is nobody else's
/// before its cooldown is over (R31).
struct Rollback {
    private let later: StateStore
    private let earlier: StateStore
    /// What is in neither of them as it is to be.
    private var taken: [StateKey: [UInt8]] = [:]

    /// - Parameters:
    ///   - earlier: the state to go back to.
    ///   - now: nanoseconds since 1970.
    init(of later: StateStore, to earlier: StateStore, now: UInt64) {
        (self.later, self.earlier) = (later, earlier)
        let seed = HashSeed(0, 0)
        let had = KeptHoldings(StoredObjects(store: later), StoredApplied(store: later), seed: seed)
        let has = KeptHoldings(StoredObjects(store: earlier), StoredApplied(store: earlier), seed: seed)
        for held in had.addresses.subtracting(has.addresses) {
            taken[StateKey(kind: RecordKind.lost, id: held.address.record)] =
                LostAddress(owner: held.owner, at: now).record
        }
        for env in had.suspendedEnvs.subtracting(has.suspendedEnvs) { suspend(env: env, seed) }
        for org in had.suspendedOrgs.subtracting(has.suspendedOrgs) { suspend(org: org) }
    }

    private mutating func suspend(env: String, _ seed: HashSeed) {
        let id = Array(env.utf8)
        let text = id.withUnsafeBufferPointer { earlier.value(RecordKind.desired(.env), $0) }
        if let text = text.flatMap({ KeptHoldings.suspending(env: $0, seed: seed) }) {
            taken[StateKey(kind: RecordKind.desired(.env), id: id)] = text
        }
        guard let applied = applied(.env, id), case .text(let before) = applied.version else { return }
        guard let text = before.withUnsafeBytes({ KeptHoldings.suspending(env: $0, seed: seed) }) else { return }
        taken[StateKey(kind: RecordKind.applied(.env), id: id)] = AppliedObject(.text(text), applied.flags).record
    }

    /// Also where there was no object of it: its envs may be there.
    private mutating func suspend(org: String) {
        let (id, text) = (Array(org.utf8), KeptHoldings.suspending(org: org))
        taken[StateKey(kind: RecordKind.desired(.org), id: id)] = text
        if let applied = applied(.org, id), case .text = applied.version {
            taken[StateKey(kind: RecordKind.applied(.org), id: id)] = AppliedObject(.text(text), applied.flags).record
        }
    }

    private func applied(_ kind: StateKind, _ id: [UInt8]) -> AppliedObject? {
        id.withUnsafeBufferPointer { StoredApplied(store: earlier).find(kind, $0) }
    }

    /// Durable on return: all of it or nothing.
    func write() throws(StateFault) {
        let batch = batch()
        if batch.problem == nil {
            try later.append(batch, durably: true)
        } else {
            try later.replaceAll { writer throws(StateFault) in try write(&writer) }
        }
    }

    /// Kinds that become what they were. Lost addresses stay, with those that are lost now.
    private static let kinds =
        StateKind.allCases.flatMap { [RecordKind.desired($0), RecordKind.applied($0)] }
        + [RecordKind.fact, RecordKind.drain]

    private func batch() -> StateBatch {
        var batch = StateBatch()
        for kind in Rollback.kinds {
            earlier.forEach(kind) { id, value in
                if let now = later.value(kind, id), now.elementsEqual(value) { return }
                batch.put(kind, id, value)
            }
            later.forEach(kind) { id, _ in
                if earlier.value(kind, id) == nil { batch.delete(kind, id) }
            }
        }
        for (key, value) in taken { value.withUnsafeBytes { batch.put(key.kind, key.id, $0) } }
        return batch
    }

    private func write(_ writer: inout SnapshotWriter) throws(StateFault) {
        for kind in Rollback.kinds {
            try earlier.visit(kind) { id, value throws(StateFault) in
                if taken[StateKey(kind: kind, id: Array(id))] == nil { try writer.put(kind, id, value) }
            }
        }
        try later.visit(RecordKind.lost) { id, value throws(StateFault) in
            if taken[StateKey(kind: RecordKind.lost, id: Array(id))] == nil {
                try writer.put(RecordKind.lost, id, value)
            }
        }
        for (key, value) in taken { try writer.put(value, key.kind, key.id) }
    }
}
