import CLinux
import Pipeline
import PipelineHealth
import PipelineNode
import PipelineRouting

/// A dry run of one connection, stage by stage, without traffic.
package struct Explanation: Sendable {
    package struct Listener: Sendable, Equatable {
        package let endpoint: Endpoint
        package let hint: ProtocolHint
        package let pipeline: String
        package let line: ConfigLine
        package var mode = ListenerMode.direct
        /// Only for connections that come in by it; nil: by any.
        package var interface: String?
        package var kindName: String { mode.intercepts ? mode.rawValue : hint.name }
    }

    package enum Answer: Sendable, Equatable {
        case passes
        /// Needs more of the client's bytes, and its verdict without them is a separate step; or a place of a limit.
        case waits(bytes: Int)
        /// `sni.no_sni client`.
        case refuses(reason: String)
    }

    package struct Step: Sendable, Equatable {
        /// The directive as written.
        package let stage: String
        package let keyword: String
        package let line: ConfigLine
        package let answer: Answer
        /// Counts and logs, and lets pass (R28).
        package let isShadow: Bool
        package let why: String
    }

    package struct Target: Sendable, Equatable {
        package let address: Endpoint
        package let instance: String
    }

    package enum Outcome: Sendable, Equatable {
        case relayed
        /// A limit is reached: it waits for a place, and ends with the reason if none comes free.
        case queued(reason: String)
        case refused(reason: String)
        case noListener
    }

    package var to: Endpoint
    package var from: Endpoint
    package var listener: Listener?
    /// Other listeners there, for other interfaces: the address alone does not say which one gets the connection.
    package var others: [Listener] = []
    package var steps: [Step] = []
    package var route: String?
    /// Whose traffic it is.
    package var owner: EnvName?
    package var serverName: String?
    /// R19: which instance of this node the connection comes from.
    package var instance: String?
    /// All backends of the route.
    package var backends: [Target] = []
    /// R18: the route's verdict in the running node; nil: no route, or no running node.
    package var proxy: ProxyVerdict?
    /// The candidates, in order.
    package var candidates: [Target] = []
    package var outcome = Outcome.noListener
    /// Of a running node: known obstacles between clients and the listener.
    package var remarks: [String] = []
}

/// Runs a compiled chain on facts and bytes, as a worker would.
package struct Explainer: ~Copyable {
    private let program: Program
    private let routes: RouteTableSnapshot
    private let listeners: [ListenerSpec]
    private let isRunning: Bool

    /// What would be, if the config were run.
    package init(_ node: LoadedNode) {
        self.init(node.program, node.routes, node.listeners.map(\.spec), isRunning: false)
    }

    package init(
        _ program: Program, _ routes: RouteTableSnapshot, _ listeners: [ListenerSpec], isRunning: Bool
    ) {
        self.program = program
        self.routes = routes
        self.listeners = listeners
        self.isRunning = isRunning
    }

    /// Answers a question as it was asked.
    package func explain(_ question: Explainer.Question) -> Explanation {
        let bytes: [UInt8]
        switch question.first {
        case .bytes(let given): bytes = given
        case .hello(let name): bytes = SyntheticHello.hello(serverName: name)
        case .usual:
            let listener = ListenerPlan.listener(for: question.to, in: listeners)
            let isTLS = listener.map { listeners[$0].hint } == .tlsPassthrough
            bytes = isTLS ? SyntheticHello.hello(serverName: nil) : []
        }
        return explain(to: question.to, from: question.from, bytes: bytes)
    }

    private func listener(_ spec: ListenerSpec) -> Explanation.Listener {
        Explanation.Listener(
            endpoint: spec.endpoint, hint: spec.hint, pipeline: program.chains[spec.chain].name, line: spec.line,
            mode: spec.mode, interface: spec.options.interface)
    }

    private func spelledAddress(_ address: IPAddress) -> IPAddress? {
        let nat64 = FrozenArray(program.node.nat64)
        defer { nat64.deallocate() }
        return SpelledAddress.v4(in: address, translatedBy: nat64)
    }

    /// - Parameter bytes: all that the client sends before it waits for an answer.
    package func explain(to: Endpoint, from: Endpoint, bytes: [UInt8]) -> Explanation {
        var result = Explanation(to: to, from: from)
        guard let index = ListenerPlan.listener(for: to, in: listeners) else { return result }
        let spec = listeners[index]
        let chain = program.chains[spec.chain]
        result.listener = listener(spec)
        for other in listeners
        where other.endpoint == spec.endpoint && other.options.interface != spec.options.interface {
            result.others.append(listener(other))
        }
        if spec.mode.intercepts, to == spec.endpoint {
            result.outcome = .refused(reason: program.reasons.text(RuntimeReason.interceptLoop.code))
            return result
        }
        let spelled = spec.mode.intercepts ? spelledAddress(to.address) : nil
        if spec.mode.intercepts, to.address.isOfThisHostAlone || spelled?.isOfThisHostAlone == true {
            result.outcome = .refused(reason: program.reasons.text(RuntimeReason.specialDestination.code))
            return result
        }
        var lasting = LastingFacts(
            peer: PeerAddress(from), destination: DestinationAddress(to), listener: UInt16(clamping: index),
            hint: spec.hint, serial: 0)
        withUnsafeMutablePointer(to: &lasting) { lasting in
            var facts = ConnectionFacts(lasting)
            facts.spelledDestination = spelled
            run(chain, bytes, &facts, &result)
            withExtendedLifetime(routes) { fill(&result, facts) }
        }
        // A dry run ends like a connection: what a stage counted for it all the same is taken back.
        lasting.release()
        return result
    }

    private func run(_ chain: Chain, _ bytes: [UInt8], _ facts: inout ConnectionFacts, _ result: inout Explanation) {
        var (prelude, memory) = (Prelude(), StageMemory())
        let (refusal, isQueued) = bytes.withUnsafeBufferPointer { buffer in
            withUnsafeMutablePointer(to: &facts) { facts in
                withUnsafeMutablePointer(to: &prelude) { prelude in
                    withUnsafeMutablePointer(to: &memory) { memory in
                        var run = ExplainRun(
                            chain: chain, reasons: program.reasons,
                            effects: Effects(facts: facts, prelude: prelude, memory: memory), facts: facts,
                            bytes: buffer, routes: routes.handle, instances: routes.instances)
                        let refusal = run.run()
                        result.steps = run.steps
                        return (refusal, run.isQueued)
                    }
                }
            }
        }
        result.outcome = refusal.map { isQueued ? .queued(reason: $0) : .refused(reason: $0) } ?? .relayed
    }

    private func fill(_ result: inout Explanation, _ facts: ConnectionFacts) {
        if !facts.serverName.isEmpty { result.serverName = facts.serverName.string }
        if let identity = facts.identity {
            result.instance = identity.pointee.id.string
            result.owner = identity.pointee.owner
        }
        if facts.direct != .no {
            result.candidates = [Explanation.Target(address: facts.destination.endpoint, instance: "")]
        }
        guard let found = facts.route else { return }
        let route = found.pointee
        result.route = route.id.string
        result.owner = route.owner.pointee.name
        let target = { (backend: Backend) in
            Explanation.Target(address: backend.address.endpoint, instance: backend.instance.string)
        }
        if isRunning { result.proxy = ProxyVerdict(found) }
        result.backends = found.backends.buffer.map(target)
        let tries = (0..<Int(facts.candidates.count)).compactMap { facts.candidates[$0] }
        result.candidates = tries.map { target($0.pointee) }
    }
}

/// One pass through a chain. The pointers are valid for as long as it runs.
private struct ExplainRun {
    let chain: Chain
    let reasons: ReasonTable
    let facts: UnsafeMutablePointer<ConnectionFacts>
    let effects: Effects
    let bytes: UnsafeBufferPointer<UInt8>
    let routes: RouteTableHandle
    let instances: InstanceDirectory
    private let now = Instant(nanoseconds: cl_now())
    var steps: [Explanation.Step] = []
    /// Stages that have passed the connection, as bits: one that does not wait for another above it is not asked again.
    private var passed: UInt32 = 0
    /// Stages see no bytes before one has asked for them.
    private var hasRead = false
    /// Once a stage has waited in vain, time is over for those after it.
    private var isTimeOver = false
    /// It would wait for a place of a limit, and the reason is what it ends with if none comes free.
    private(set) var isQueued = false

    init(
        chain: Chain, reasons: ReasonTable, effects: Effects, facts: UnsafeMutablePointer<ConnectionFacts>,
        bytes: UnsafeBufferPointer<UInt8>, routes: RouteTableHandle, instances: InstanceDirectory
    ) {
        self.chain = chain
        self.reasons = reasons
        self.facts = facts
        self.effects = effects
        self.bytes = UnsafeBufferPointer(rebasing: bytes.prefix(chain.peekBytes))
        self.routes = routes
        self.instances = instances
    }

    /// - Returns: the reason of the stage that refuses; nil: all pass.
    mutating func run() -> String? {
        for number in chain.stages.buffer.indices {
            if let refusal = runAhead(chain.ahead[number].always) ?? ask(number) { return refusal }
        }
        guard !facts.pointee.owesProxyHeader else {
            return reasons.text(RuntimeReason.owedProxyHeader.code)
        }
        return nil
    }

    private mutating func runAhead(_ stages: UInt32) -> String? {
        for number in chain.stages.buffer.indices where stages & 1 << UInt32(number & 31) != 0 {
            if let refusal = ask(number) { return refusal }
        }
        return nil
    }

    private mutating func ask(_ number: Int) -> String? {
        let bit: UInt32 = 1 << UInt32(number & 31)
        guard passed & bit == 0 else { return nil }
        let stage = chain.stages[number]
        let state = stage.filter.makeStateErased(stage.settings, .explaining)
        defer { stage.filter.disposeStateErased(state) }
        let refusal = ask(number, stage, state)
        passed |= bit
        return refusal
    }

    private mutating func ask(_ number: Int, _ stage: Stage, _ state: UnsafeMutableRawPointer) -> String? {
        // What to make of ``Verdict/inspect(_:)``.
        let isNonBlocking = chain.isNonBlocking(at: number)
        if isNonBlocking { hasRead = true }
        var verdict = evaluate(stage, state)
        if verdict.wanted != nil, !hasRead {
            if case .inspect = verdict, let refusal = runAhead(chain.ahead[number].besideInspection) { return refusal }
            hasRead = true
            verdict = evaluate(stage, state)
        }
        if let total = verdict.wanted {
            add(stage, .waits(bytes: total), verdict)
            // A non-blocking inspection continues while the other direction flows; any other stage waits until its
            // deadline.
            if isNonBlocking, case .inspect = verdict { return nil }
            isTimeOver = true
            verdict = evaluate(stage, state)
        }
        switch verdict {
        case .next,
            // An inspection that stays open when the time is over lets the rest go on too.
            .inspect where isTimeOver && stage.isNonBlocking:
            add(stage, .passes, verdict)
            return nil
        case .needBytes, .inspect:
            return reasons.text(RuntimeReason.internalError.code)
        case .refuse(let code):
            let reason = reasons.text(stage.code(code))
            add(stage, .refuses(reason: reason), verdict)
            return stage.shadow ? nil : reason
        case .wait:
            guard let offer = facts.pointee.queue else { return reasons.text(RuntimeReason.internalError.code) }
            guard offer.rule.queue.pointee.waiting.current < offer.rule.limit else {
                let reason = reasons.text(stage.code(offer.ifFull))
                add(stage, .refuses(reason: reason), verdict)
                return reason
            }
            add(stage, .waits(bytes: 0), verdict)
            isQueued = true
            return reasons.text(stage.code(offer.ifOver))
        }
    }

    private var view: ConnectionView {
        let seen = UnsafeBufferPointer(rebasing: bytes.prefix(hasRead ? bytes.count : 0))
        let isFull = chain.peekBytes > 0 && seen.count >= chain.peekBytes
        return ConnectionView(
            facts: facts, bytes: seen, input: isTimeOver ? .timedOut : isFull ? .full : .open, now: now,
            wallClock: cl_wall_clock(), routes: routes, instances: instances, isDryRun: true)
    }

    private func evaluate(_ stage: Stage, _ state: UnsafeMutableRawPointer) -> Verdict {
        stage.filter.evaluateErased(stage.settings, state, view, effects)
    }

    private mutating func add(_ stage: Stage, _ answer: Explanation.Answer, _ verdict: Verdict) {
        steps.append(
            Explanation.Step(
                stage: stage.source, keyword: stage.filter.descriptor.keyword, line: stage.line, answer: answer,
                isShadow: stage.shadow, why: stage.filter.explainErased(stage.settings, view, verdict)))
    }
}
