import Pipeline
import PipelineRuntime

/// What was moved since the last word of it.
struct Growth: Equatable {
    var connections = 0
    var up: UInt64 = 0
    var down: UInt64 = 0

    mutating func add(_ other: Growth) {
        connections += other.connections
        up += other.up
        down += other.down
    }
}

/// Accounts of connections that live (S26).
extension World {
    /// A stage hears of a connection.
    func grew(_ state: StageState, _ totals: ConnectionTotals, isEnd: Bool) {
        guard let connection = connection(totals.client.endpoint) else { return }
        guard totals.reported.bytesToUpstream <= totals.bytesToUpstream,
            totals.reported.bytesToClient <= totals.bytesToClient
        else { return fail("S26: #\(connection.index) shrinks") }
        if connection.isSettledInAccounts { fail("S26: #\(connection.index) grows after its end") }
        connection.isSettledInAccounts = isEnd
        var told = connection.accounted
        if let pending = state.pending[connection.index] { told.add(pending) }
        if told.up != totals.reported.bytesToUpstream || told.down != totals.reported.bytesToClient {
            fail("S26: #\(connection.index) is said to have been told of otherwise than it was")
        }
        state.pending[connection.index, default: Growth()].add(
            Growth(
                connections: totals.isReported ? 0 : 1, up: totals.bytesToUpstream - totals.reported.bytesToUpstream,
                down: totals.bytesToClient - totals.reported.bytesToClient))
    }

    /// Now and then nobody takes what there is, or only a part of it.
    func flush(_ state: StageState, isLast: Bool) -> FlushOutcome {
        calls += 1
        if !isLast, random.chance(20) { return state.pending.isEmpty ? .done : .waits }
        if !isLast, random.chance(20), let (connection, growth) = state.pending.min(by: { $0.key < $1.key }) {
            effects += 1
            connections[connection].accounted.add(growth)
            state.pending[connection] = nil
            return state.pending.isEmpty ? .done : .more
        }
        if !state.pending.isEmpty { effects += 1 }
        state.handOver()
        return .done
    }

    /// At the end: each connection that was settled is in the accounts once, with every byte.
    func checkAccounts() {
        guard scenario.accounts != nil else { return }
        for connection in connections {
            let expected =
                connection.isSettledInAccounts
                ? Growth(connections: 1, up: connection.totals?.up ?? 0, down: connection.totals?.down ?? 0) : Growth()
            if connection.accounted != expected {
                fail("S26: #\(connection.index) moved \(expected), and the accounts have \(connection.accounted)")
            }
        }
    }

    /// A worker without connections has nothing to tell of, and does not wake up to find that out.
    func checkIdle(_ timeout: TimeSpan?) {
        let isIdle = !isStarved && connections.allSatisfy { !$0.isLive } && timeout != nil && timeout != .zero
        idleWaits = isIdle ? idleWaits + 1 : 0
        if idleWaits > 30, scenario.orders.isEmpty { fail("S26: the worker wakes up again and again for nobody") }
    }
}
