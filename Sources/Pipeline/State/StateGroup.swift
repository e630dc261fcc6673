import Pipeline

/// Batches that become durable together, by one write and one sync, and are then in force or were never there (ADR 0112).
///
/// It stands over what its store has: whoever asks the group sees its batches, whoever asks the store does not. Each batch
/// is an entry of the log.
///
/// Threading: as the store. Of one store there is one at a time, and nothing else changes the store from its first batch
/// on until it has ended.
public final class StateGroup {
    let store: StateStore
    let staged: Overlay
    /// By kind: how many records more there are.
    private var added = [Int](repeating: 0, count: 256)
    /// The entries, one behind the other.
    private(set) var bytes: [UInt8] = []
    private var starts: [Int] = []
    /// Of the log that the entries are sealed for.
    private var salt: UInt32

    init(_ store: StateStore) {
        self.store = store
        staged = Overlay(store.seed)
        salt = store.log.salt
    }

    /// How many batches it has.
    public var count: Int { starts.count }
    public var byteCount: Int { bytes.count }
    /// Of its last batch; of the store's last change, if it has none.
    public var sequence: UInt64 { store.sequence + UInt64(starts.count) }

    /// See ``StateStore/spoiled``.
    public var spoiled: StateFault? { store.spoiled }

    // MARK: What there would be

    /// As ``StateStore/value(_:_:)``, and until the group has ended.
    public func value(_ kind: UInt8, _ id: UnsafeBufferPointer<UInt8>) -> UnsafeRawBufferPointer? {
        guard let record = find(kind, id, hash: SipHash.hash(id, domain: kind, seed: store.seed)), !record.isDeletion
        else { return nil }
        return record.value
    }

    private func find(_ kind: UInt8, _ id: UnsafeBufferPointer<UInt8>, hash: UInt64) -> Record? {
        staged.find(kind, id, hash: hash) ?? store.find(kind, id, hash: hash)
    }

    public func forEach(
        _ kind: UInt8, _ body: (_ id: UnsafeBufferPointer<UInt8>, _ value: UnsafeRawBufferPointer) -> Void
    ) {
        store.forEach(kind, store.changes(of: kind, under: staged), body)
    }

    public func count(_ kind: UInt8) -> Int { store.count(kind) + added[Int(kind)] }

    // MARK: Batches

    /// Puts a batch over those before it. The store knows nothing of it yet.
    public func stage(_ batch: StateBatch) throws(StateFault) {
        if let problem = batch.problem { throw problem }
        guard !batch.isEmpty else { return }
        let start = bytes.count
        bytes.append(contentsOf: batch.bytes)
        LogEntry.seal(
            &bytes, at: start, count: batch.bytes.count, records: batch.count, sequence: sequence + 1,
            synced: store.synced, salt: salt)
        starts.append(start)
        visit(starts.count - 1) { entry in entry.visit { put($0) } }
    }

    private func put(_ record: Record) {
        let hash = record.hash(store.seed)
        let before = find(record.kind, record.id, hash: hash)
        let was = before.map { !$0.isDeletion } ?? false
        added[Int(record.kind)] += (record.isDeletion ? 0 : 1) - (was ? 1 : 0)
        staged.set(record, hash: hash)
    }

    private func visit(_ index: Int, _ body: (LogEntry) -> Void) {
        bytes.withUnsafeBytes { all in
            let rest = UnsafeRawBufferPointer(rebasing: all[starts[index]...])
            if let entry = LogEntry(header: rest, salt: salt) { body(entry) }
        }
    }

    /// For the log that the store appends to now.
    func seal() {
        salt = store.log.salt
        LogEntry.reseal(&bytes, first: store.sequence + 1, synced: store.synced, salt: salt)
    }

    /// Has the store write it where it still can, on this thread; it is sealed for that log then.
    func writeDurably(_ found: [DisturbedFile]) throws(StateFault) {
        _ = try store.writeDurably(&bytes, found)
        salt = store.log.salt
    }

    /// Puts a batch in force, once the group is durable: in their order.
    public func takeEffect(_ index: Int) { visit(index) { store.apply($0) } }
}
