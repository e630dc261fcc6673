import Pipeline
import PipelineFlows
import Synchronization

/// A flow record to export, with its instance's names at the time of the record.
package struct ExportFlow: Sendable {
    package var record: FlowRecord
    package var names: FlowNames
    package init(_ record: FlowRecord, _ names: FlowNames) {
        self.record = record
        self.names = names
    }
}

/// An exporter's counters, for status and metrics. Records, unless noted.
package struct ExportStatistics: Equatable, Sendable {
    /// Handed to the kernel. Over UDP some may be in ``lost`` later, and delivery of the rest is unknown; over TCP
    /// those unread at a broken connection are gone.
    package var sent: UInt64 = 0
    package var messages: UInt64 = 0
    /// Never sent: the queue was full.
    package var dropped: UInt64 = 0
    /// Never sent, since the kernel refused them for good or the node stopped first; or sent by UDP, and ICMP said that they
    /// did not arrive: of those, what is known, and no more.
    package var lost: UInt64 = 0
    /// How often the collector could not be reached, or the connection broke.
    package var failures: UInt64 = 0
    /// Accepted, and neither sent nor lost yet.
    package var waiting = 0
    package var isConnected = false
    /// The errno of the last failure; 0: none since the collector was last reached.
    package var error: Int32 = 0
}

/// The bounded queue to the exporter's thread. Records count until they are sent, so that an absent collector costs at
/// most the memory of ``limit`` records (R27).
///
/// Threading: any; one lock, held for moves of arrays only.
final class ExportQueue: Sendable {
    private struct State {
        var flows: [ExportFlow] = []
        var statistics = ExportStatistics()
    }

    let limit: Int
    private let state = Mutex(State())

    init(limit: Int) { self.limit = limit }

    /// How many of them were taken; the rest, the newest, is dropped and counted.
    func enqueue(_ flows: [ExportFlow]) -> Int {
        state.withLock { state in
            let room = max(0, limit - state.statistics.waiting)
            let taken = min(room, flows.count)
            state.flows.append(contentsOf: flows.prefix(taken))
            state.statistics.waiting += taken
            state.statistics.dropped += UInt64(flows.count - taken)
            return taken
        }
    }

    /// All that wait, oldest first.
    func takeAll() -> [ExportFlow] {
        state.withLock { state in
            let flows = state.flows
            state.flows = []
            return flows
        }
    }

    var statistics: ExportStatistics { state.withLock { $0.statistics } }

    func note(_ change: (inout ExportStatistics) -> Void) { state.withLock { change(&$0.statistics) } }
}
