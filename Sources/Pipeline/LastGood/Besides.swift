import Pipeline
import PipelineRouting
import PipelineState

/// What is kept beside objects: addresses that envs have lost (R31), and instances that drain.
struct Besides {
    /// What could not be written yet: nil, to be deleted.
    private var pending: [StateKey: [UInt8]?] = [:]

    var isEmpty: Bool { pending.isEmpty }

    mutating func collect(_ routing: RoutingState) {
        for (address, lost) in routing.takeLostAddresses() {
            pending[StateKey(kind: RecordKind.lost, id: address.record)] = .some(lost?.record)
        }
        for (endpoint, drain) in routing.takeDrains() {
            pending[StateKey(kind: RecordKind.drain, id: endpoint.record)] = .some(drain?.record)
        }
    }

    func put(_ batch: inout StateBatch, _ store: StateStore) {
        for (key, record) in pending {
            if let record {
                record.withUnsafeBytes { batch.put(key.kind, key.id, $0) }
            } else if key.id.withUnsafeBufferPointer({ store.value(key.kind, $0) }) != nil {
                batch.delete(key.kind, key.id)
            }
        }
    }

    mutating func written() { pending = [:] }

    static func restore(_ routing: RoutingState, _ store: StateStore) {
        var lost: [(IPAddress, LostAddress)] = []
        store.forEach(RecordKind.lost) { id, value in
            if let address = IPAddress(record: id), let one = LostAddress(record: value) { lost.append((address, one)) }
        }
        routing.restore(lost: lost)
        var drains: [(Endpoint, KeptDrain)] = []
        store.forEach(RecordKind.drain) { id, value in
            if let endpoint = Endpoint(record: id), let one = KeptDrain(record: value) {
                drains.append((endpoint, one))
            }
        }
        routing.restore(drains: drains)
    }
}
