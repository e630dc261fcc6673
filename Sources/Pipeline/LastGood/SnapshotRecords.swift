import Pipeline
import PipelineRouting
import PipelineState

// What is written into a snapshot: from memory, and from a store.

extension SnapshotWriter {
    mutating func put(_ value: [UInt8], _ kind: UInt8, _ id: some Collection<UInt8>) throws(StateFault) {
        let result = value.withUnsafeBytes { bytes -> Result<Void, StateFault> in
            do throws(StateFault) { return .success(try put(kind, id, bytes)) } catch { return .failure(error) }
        }
        try result.get()
    }
}

/// What a store has, or would have.
protocol RecordsInOrder {
    func forEach(_ kind: UInt8, _ body: (Bytes, UnsafeRawBufferPointer) -> Void)
}
extension StateStore: RecordsInOrder {}
extension StateGroup: RecordsInOrder {}

extension RecordsInOrder {
    /// As ``forEach(_:_:)``, with a body that may fail: that ends it.
    func visit(
        _ kind: UInt8, _ body: (Bytes, UnsafeRawBufferPointer) throws(StateFault) -> Void
    ) throws(StateFault) {
        var fault: StateFault?
        forEach(kind) { id, value in
            guard fault == nil else { return }
            do throws(StateFault) { try body(id, value) } catch { fault = error }
        }
        if let fault { throw fault }
    }
}
