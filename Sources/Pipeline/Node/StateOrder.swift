import Pipeline
import PipelineRouting

/// The order of desired state documents: whether a new document may follow the applied one. A source is a path: another
/// file is another source.
///
/// Threading: the control thread.
struct StateOrder {
    /// A document as it was read.
    struct Reading {
        let path: String
        /// Nil: it has none, and is not compared.
        let revision: UInt64?
        /// Its lists are empty.
        let isEmpty: Bool
        /// A hash of its bytes.
        let content: UInt64

        init(_ document: StateDocument, _ bytes: [UInt8], path: String) {
            self.path = path
            revision = document.revision
            isEmpty = document.isEmpty
            content = StateOrder.hash(bytes)
        }
    }

    private static let seed = HashSeed.random()
    static func hash(_ bytes: [UInt8]) -> UInt64 {
        bytes.withUnsafeBufferPointer { SipHash.hash($0, seed: seed) }
    }
    /// The last that was applied and had a revision.
    private var last: Reading?
    /// The state file that is applied; nil: none is named.
    private(set) var path: String?
    /// Objects of the source are applied.
    private var holdsState = false

    /// Why it is refused; nil: it may be applied.
    /// - Parameter isConfirmed: the operator confirmed it.
    func refusal(of new: Reading, isConfirmed: Bool) -> String? {
        if !isConfirmed, let last, last.path == new.path, let known = last.revision, let revision = new.revision,
            revision < known
        {
            return "the state file \(new.path) has revision \(revision), but \(known) is applied; raise the revision, "
                + "or run `pipelined reload --confirm` to go back"
        }
        guard new.isEmpty, holdsState, !isConfirmed else { return nil }
        return "the state file \(new.path) has three empty lists, which would remove every route it has served; to do "
            + "that, run `pipelined reload --confirm`"
    }

    /// It has the revision of the previous document, but other content.
    func isReused(by new: Reading) -> Bool {
        guard let last, last.path == new.path, new.revision != nil else { return false }
        return new.revision == last.revision && new.content != last.content
    }

    /// - Parameter new: nil: no state file is named any more.
    mutating func applied(_ new: Reading?) {
        path = new?.path
        holdsState = new.map { !$0.isEmpty } ?? false
        if let new, new.revision != nil { last = new }
    }
}
