import CLinux
import Pipeline

/// Whether processes that listen at Unix sockets are nodes, whose admin sockets are nobody's backend. Answers are kept for a
/// second: a connect costs no more calls for it.
struct NodePeers {
    private struct Answer {
        var process: Int32 = 0
        var isNode = false
        var until = Instant(nanoseconds: 0)
    }
    /// A power of two.
    private static var size: Int { 16 }
    private static var freshness: TimeSpan { .seconds(1) }
    private var answers = InlineArray<16, Answer>(repeating: Answer())

    /// - Parameter process: 0: this process does not see it.
    mutating func isNode(_ process: Int32, at now: Instant) -> Bool {
        guard process > 0 else { return false }
        let place = Int(process) & (NodePeers.size - 1)
        if answers[place].process == process, answers[place].until > now { return answers[place].isNode }
        let isNode = cl_process_is_node(process) == 1
        answers[place] = Answer(process: process, isNode: isNode, until: now + NodePeers.freshness)
        return isNode
    }
}
