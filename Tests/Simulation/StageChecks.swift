import Pipeline
import PipelineRuntime

/// What stages see, and how they are settled.
extension World {
    func connection(_ endpoint: Endpoint) -> Connection? {
        let index = Int(endpoint.port) - 10_000
        guard index >= 0, index < connections.count else {
            fail("a stage is asked about a client that is none: \(endpoint)")
            return nil
        }
        return connections[index]
    }

    /// [S10] [S13] [S16] Before a stage decides.
    func enter(_ settings: StageSettings, _ view: ConnectionView) -> Connection? {
        calls += 1
        if calls > 100_000 { fail("a stage is asked without end in one turn") }
        guard failure == nil, let connection = connection(view.facts.peer.endpoint) else { return nil }
        actor = connection.index
        let bit: UInt32 = 1 << UInt32(settings.stage)
        if !connection.isLive { fail("stage \(settings.stage) is asked about #\(connection.index), which is over") }
        if connection.passed & bit != 0 { fail("S13: stage \(settings.stage) is asked again after it passed") }
        checkProgram(connection, settings)
        let bytes = UnsafeRawBufferPointer(view.bytes)
        if bytes.count > connection.client.taken + connection.client.peeked
            || !connection.plan.client.stream.matches(bytes, at: 0)
        {
            fail("S1: stage \(settings.stage) of #\(connection.index) sees bytes that were not sent")
        }
        switch view.input {
        case .open: break
        case .ended:
            if !connection.client.finArrived { fail("stage of #\(connection.index) is told of a FIN that never came") }
        case .timedOut:
            let deadline = connection.acceptedAt &+ settings.chain.peekTimeout.nanoseconds
            if clock < deadline { fail("S10: stage of #\(connection.index) times out early") }
        case .full:
            let budget = max(settings.chain.peeks ? settings.chain.peekBytes : 0, settings.chain.inspects ? 32 : 0)
            if bytes.count != budget { fail("stage of #\(connection.index) is full at \(bytes.count)") }
        }
        return connection
    }

    /// [S16] One program from the first stage to the end, and never one that control may have freed.
    func checkProgram(_ connection: Connection, _ settings: StageSettings) {
        if settings.program.isReleased { fail("S16: #\(connection.index) runs on a program that was released") }
        if let first = connection.program, first !== settings.program {
            fail("S16: #\(connection.index) goes on with another program than it began with")
        }
        connection.program = settings.program
    }

    /// [S28] What the newest table says is what the worker sees; the route and owner that the connection has from here on.
    func routeFound(_ connection: Connection, _ route: FoundRoute) -> TablePlan? {
        let library = control.library
        if scenario.looksUpOld { return connection.oldRoute?.plan }
        let plan = library.current(self).first { plan in
            plan.isThere && route.pointee.cell == library.cell(plan.cell)
                && route.pointee.owner == library.owner(plan.owner)
                && route.group.pointee.backends.count == plan.members.count
        }
        guard let plan else {
            fail("S28: #\(connection.index) is looked up in a table that is not the newest")
            return nil
        }
        return plan
    }

    /// - Parameter looks: the stage looks at bytes. One that doesn't may be asked while another waits, and changes nothing of
    ///   that.
    func decided(_ settings: StageSettings, _ connection: Connection, _ verdict: Verdict, looks: Bool) {
        let isInspection = settings.chain.inspects && settings.stage == settings.chain.inspectStage
        note("stage \(settings.stage) of #\(connection.index): \(verdict)")
        switch verdict {
        case .inspect:
            // Above a stage that waits it waits too, until the deadline; after that it does not block.
            // Who has waited for a place may come to it late, and is then told so at once.
            let deadline = max(connection.acceptedAt &+ settings.chain.peekTimeout.nanoseconds, connection.leftQueue)
            connection.peekDeadline = settings.chain.inspectsFirst && clock < deadline ? deadline : nil
            connection.inspection = .open
            return
        case .needBytes:
            connection.peekDeadline = max(
                connection.acceptedAt &+ settings.chain.peekTimeout.nanoseconds, connection.leftQueue)
            return
        case .refuse(let reason):
            if settings.stage != 0 || !settings.chain.shadows {
                connection.isRefusedByStage = ReasonCode(rawValue: settings.reasonBase + UInt16(reason))
                connection.peekDeadline = nil
                return
            }
        case .wait:
            connection.peekDeadline = nil
            connection.queuedAt = connection.queuedAt ?? clock
            return
        case .next: break
        }
        if settings.isBackend, connection.queuedAt != nil {
            connection.queuedAt = nil
            connection.leftQueue = clock
        }
        if looks { connection.peekDeadline = nil }
        if isInspection { connection.inspection = .over }
        connection.passed |= 1 << UInt32(settings.stage)
    }

    /// [S13]
    func settled(_ settings: StageSettings, _ totals: ConnectionTotals) {
        guard let connection = connection(totals.client.endpoint) else { return }
        checkProgram(connection, settings)
        let bit: UInt32 = 1 << UInt32(settings.stage)
        if connection.settled & bit != 0 { fail("S13: stage \(settings.stage) of #\(connection.index) settles twice") }
        if connection.passed & bit == 0 {
            fail("S13: stage \(settings.stage) of #\(connection.index) settles and never passed")
        }
        connection.settled |= bit
        let moved = (up: totals.bytesToUpstream, down: totals.bytesToClient)
        if let before = connection.totals, before != moved { fail("S14: stages of #\(connection.index) disagree") }
        connection.totals = moved
        if totals.backend != nil { connection.wasConnected = true }
    }
}
