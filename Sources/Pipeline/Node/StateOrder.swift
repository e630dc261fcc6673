import Pipeline
import PipelineRouting

/// What a node has taken from its source of desired state, and whether a document goes on from there. A source is a path:
/// another file is another source.
///
/// Threading: the control thread.
struct StateOrder {
    /// A document as it was read.
    struct Reading {
        let path: String
        /// Nil: it gives none, and is not compared.
        let revision: UInt64?
        /// There is nothing in its lists.
        let isEmpty: Bool
        /// Stands for its bytes.
        let content: UInt64

        init(_ document: StateDocument, _ bytes: [UInt8], path: String) {
            self.path = path
            revision = document.revision
            isEmpty = document.isEmpty
            content = bytes.withUnsafeBufferPointer { SipHash.hash($0, seed: StateOrder.seed) }
        }
    }

    private static let seed = HashSeed.random()
    /// The last that was applied and had a revision.
    private var last: Reading?
    /// Something of the source is applied.
    private var holdsState = false

    /// Why it is not applied; nil: it may be.
    /// - Parameter isConfirmed: whoever asks says that it is meant.
    func refusal(of new: Reading, isConfirmed: Bool) -> String? {
        if !isConfirmed, let last, last.path == new.path, let known = last.revision, let revision = new.revision,
            revision < known
        {
            return "the state file \(new.path) has revision \(revision), and \(known) was applied; "
                + "give it a higher one, or, if going back is meant, run `pipelined reload --confirm`"
        }
        guard new.isEmpty, holdsState, !isConfirmed else { return nil }
        return "the state file \(new.path) has three empty lists, which would take away all that it had served; "
            + "if that is meant, run `pipelined reload --confirm`"
    }

    /// It has the revision of the one before, and says something else.
    func isReused(by new: Reading) -> Bool {
        guard let last, last.path == new.path, new.revision != nil else { return false }
        return new.revision == last.revision && new.content != last.content
    }

    /// - Parameter new: nil: no state file is named any more.
    mutating func applied(_ new: Reading?) {
        holdsState = new.map { !$0.isEmpty } ?? false
        if let new, new.revision != nil { last = new }
    }
}
