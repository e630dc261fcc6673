import Pipeline
import PipelineRuntime

/// TLS that begins behind an opening: what the node says and hears itself (docs/adr/0097).
struct UpgradePlan {
    /// A stage says this to the client before it has sent anything.
    var reply: [UInt8]
    /// And this to the backend, in so many parts.
    var question: [UInt8]
    var parts: Int
    /// The backend's first bytes, which are for the node.
    var answer: Int
    var within: TimeSpan
}

/// How far a connection has come with it.
struct UpgradeState {
    /// The client was told to begin.
    private(set) var isAnswered = false
    /// Its backend is to begin before it gets anything of the client's.
    var isPending = false
    var deadline: UInt64?
    /// The bytes of the backend's that were for the node.
    var heard = 0
    /// The bytes of the question that were said so far.
    var asked = 0

    mutating func answer(_ plan: ConnectionPlan, _ effects: Effects) {
        guard let upgrade = plan.upgrade, !isAnswered else { return }
        isAnswered = true
        upgrade.reply.withUnsafeBufferPointer { effects.say($0) }
    }
}

extension Connection {
    /// What comes to the client before the backend's bytes.
    var said: [UInt8] { upgrade.isAnswered ? plan.upgrade?.reply ?? [] : [] }
    /// What comes to the backend before the client's bytes.
    var preamble: [UInt8] { plan.prelude + (plan.upgrade?.question.prefix(upgrade.asked) ?? []) }
}

extension Scenario {
    /// One in seven seeds has a chain that answers openings. The others stay what they were.
    mutating func drawUpgrades(_ random: inout SeededRandom) {
        guard random.chance(15), !rejectsHeaders, chains[0].peeks else { return }
        chains[0].upgrades = true
        // Room for a whole hello.
        chains[0].peekBytes = max(chains[0].peekBytes, 2048)
        for index in connections.indices where connections[index].listener == 0 && random.chance(80) {
            drawUpgrade(&connections[index], &random)
        }
    }

    /// Every client of a chain that answers openings sends a hello, once it was answered or before.
    mutating func makeUpgrades() {
        var random = SeededRandom(seed: seed ^ 0x5EED_0098)
        guard !rejectsHeaders, chains[0].peeks else { return }
        chains[0].upgrades = true
        chains[0].peekBytes = max(chains[0].peekBytes, 2048)
        for index in connections.indices where connections[index].listener == 0 {
            let hello = FirstBytes.clientHello(name: "app.example.com", size: random.pick([0, 300, 1200]))
            connections[index].client.stream = ByteStream(head: hello, offset: connections[index].client.stream.offset)
            connections[index].client.bytes = max(connections[index].client.bytes, hello.count)
            connections[index].client.start = random.chance(50) ? .atOnce : .afterReading(1)
            drawUpgrade(&connections[index], &random)
        }
    }

    private func drawUpgrade(_ plan: inout ConnectionPlan, _ random: inout SeededRandom) {
        let parts = random.pick([1, 1, 2, 3])
        let upgrade = UpgradePlan(
            reply: (0..<random.pick([1, 1, 40, NodeMessage.capacity])).map { UInt8(truncatingIfNeeded: $0 &* 11 &+ 1) },
            question: (0..<parts * random.pick([1, 8, 170])).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ 2) },
            parts: parts, answer: parts * random.pick([1, 1, 30]),
            within: random.pick([.milliseconds(50), .seconds(5)]))
        plan.upgrade = upgrade
        plan.hasHeader = false
        plan.buckets = []
        plan.server.start = .atOnce
        plan.server.bytes = max(plan.server.bytes, random.chance(90) ? upgrade.answer : 0)
        // Most answer when they were asked, and say no more before the hello.
        guard random.chance(85) else { return }
        plan.server.start = .afterReading(plan.prelude.count + upgrade.question.count / parts)
        let isLate = random.chance(90)
        plan.server.waits = (upgrade.answer, plan.prelude.count + upgrade.question.count + (isLate ? 1 : 0))
    }
}

extension World {
    /// The stage that has answered the client asks its backend: a part of the question for each part of the answer.
    func upgrade(
        _ settings: StageSettings, _ answer: UnsafeBufferPointer<UInt8>, _ view: ConnectionView, _ effects: Effects
    ) -> UpgradeStep {
        calls += 1
        guard failure == nil, let connection = connection(view.facts.peer.endpoint), let plan = connection.plan.upgrade
        else { return .refuse(0) }
        actor = connection.index
        checkProgram(connection, settings)
        if !connection.isLive { fail("S38: a backend is asked for #\(connection.index), which is over") }
        if !connection.upgrade.isPending { fail("S38: #\(connection.index) is not to be upgraded, or was") }
        let isFirst = connection.upgrade.deadline == nil
        if isFirst != answer.isEmpty { fail("S38: an answer to #\(connection.index) before it has asked, or none") }
        if isFirst { connection.upgrade.deadline = clock &+ plan.within.nanoseconds }
        let bytes = UnsafeRawBufferPointer(answer)
        if !connection.plan.server.stream.matches(bytes, at: connection.upgrade.heard) {
            fail("S38: wrong bytes of the backend's to the stage of #\(connection.index)")
        }
        connection.upgrade.heard += bytes.count
        let (heard, part) = (connection.upgrade.heard, plan.answer / plan.parts)
        guard heard <= plan.answer else {
            connection.isRefusedByStage = ReasonCode(rawValue: settings.reasonBase)
            return .refuse(0)
        }
        guard heard < plan.answer else {
            // It may have answered before all of the question was said.
            guard connection.upgrade.asked == plan.question.count else {
                connection.isRefusedByStage = ReasonCode(rawValue: settings.reasonBase)
                return .refuse(0)
            }
            connection.upgrade.isPending = false
            stats.upgraded += 1
            return .done
        }
        let due = plan.question.count / plan.parts * min(plan.parts, heard / part + 1)
        let rest = plan.question[connection.upgrade.asked..<max(due, connection.upgrade.asked)]
        connection.upgrade.asked += rest.count
        Array(rest).withUnsafeBufferPointer { effects.say($0) }
        return .more
    }

    /// [S6] A backend that is asked to begin TLS has been told all that it takes, and all that it has said was read.
    func checkUpgradeSleep(_ connection: Connection, _ upstream: Socket) {
        let isOwed = upstream.sent < connection.preamble.count
        let hasSpoken = upstream.unread > 0 || upstream.finArrived
        if upstream.isDead || (isOwed ? upstream.isWritable : hasSpoken) {
            fail("S6: the worker sleeps, and the backend of #\(connection.index) is to begin TLS")
        }
    }

    /// [S38] The end of a wait for a backend to begin TLS.
    func checkUpgradeEnd(_ connection: Connection, _ reason: RuntimeReason, _ name: String) {
        guard connection.upgrade.isPending, let deadline = connection.upgrade.deadline else {
            return fail("\(name), and no backend was asked")
        }
        if reason == .upgradeTimeout, clock < deadline { fail("\(name), too early") }
        if reason == .upgradeClosed, connection.upstream?.isDead != true, connection.upstream?.finArrived != true {
            fail("\(name), and the backend is well")
        }
    }
}
