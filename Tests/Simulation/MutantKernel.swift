import Pipeline
import PipelineRuntime

/// What a broken worker would do, or a broken kernel: one thing wrong, the rest as it should be.
enum Mutation: String, CaseIterable {
    /// Every so often an event never reaches the worker.
    case losesEvent
    /// A write's last byte is written again by the next one.
    case doublesByte
    /// A write that was cut short is taken for whole.
    case losesRest
    /// FIN is never passed on.
    case forgetsFin
    /// FIN is passed on as soon as a backend is connected.
    case finTooEarly
    /// A reset is passed on as an orderly end.
    case softensReset
    /// Peers that speak are called quiet.
    case callsIdle
    /// Sockets stay open.
    case leaksDescriptor
    /// A socket is closed a second time.
    case closesTwice
    /// Time stands still for the timers.
    case losesTime
    /// Resets and failed connects of backends are not seen.
    case ignoresHangup
    /// Sleeps never, so as not to miss anything.
    case spins
    /// A listener that is gone is closed with clients in its queue.
    case dropsQueued
    /// Wakes when it should, and a little later.
    case oversleeps
    /// What is held is given back twice.
    case releasesTwice
    /// A backend's connections are counted twice.
    case countsTwice
    /// A socket is used again while bytes are on their way to its peer.
    case takesBack
    /// A connection gets any socket that waits, whoever had it, and wherever it was connected.
    case reusesAcross
    /// A stream that was let gather is held up for good.
    case keepsMark
    /// A stream's last bytes wait for more, which never come.
    case corksLast
    /// A listener that can't be accepted from is watched on.
    case keepsWatching
    /// What was written from a peek is not taken off.
    case leavesPeeked
    /// What a side had sent before it was found gone is not to be had any more.
    case losesLastWords
    /// A silent peer is taken for one that answers.
    case hearsVoices
    /// A slow peer is taken for a silent one.
    case isDeaf

    /// The invariant that notices it; nil: whichever comes first.
    var invariant: String? { self == .reusesAcross ? "S24" : nil }
}

/// A ``FakeKernel`` with a ``Mutation`` between it and the worker.
struct MutantKernel: Kernel {
    private var base: FakeKernel
    private let mutation: Mutation
    private let world: World
    private var counter = 0

    init(_ mutation: Mutation, _ world: World) {
        base = FakeKernel(world: world)
        self.mutation = mutation
        self.world = world
    }

    /// True now and then, and always the same for a seed.
    private mutating func strikes(_ mutation: Mutation) -> Bool {
        guard mutation == self.mutation else { return false }
        counter += 1
        return counter % 5 == 0
    }

    mutating func now() -> Instant {
        mutation == .losesTime ? Instant(nanoseconds: Scenario.start) : base.now()
    }
    func wallClock() -> UInt64 { base.wallClock() }

    mutating func wait(_ events: UnsafeMutableBufferPointer<Event>, timeout: TimeSpan?) -> Int {
        var timeout = timeout
        if mutation == .spins { timeout = .zero }
        if mutation == .oversleeps, let exact = timeout, exact > .zero {
            timeout = TimeSpan(nanoseconds: exact.nanoseconds + 40_000_000)
        }
        let count = base.wait(events, timeout: timeout)
        if mutation == .ignoresHangup {
            for i in 0..<count where events[i].key.kind == .upstream { events[i].readiness.remove(.hangup) }
        }
        guard count > 0, events[count - 1].key.kind != .listener, strikes(.losesEvent) else { return count }
        return count - 1
    }

    mutating func wake(workersAt place: Int) { base.wake(workersAt: place) }
    mutating func take(_ listener: Descriptor) -> Outcome { base.take(listener) }
    mutating func stopListening(_ listener: Descriptor) { base.stopListening(listener) }
    mutating func letGo(_ listener: Descriptor) { base.letGo(listener) }

    mutating func accept(_ listener: Descriptor, _ accepted: inout Accepted) -> Outcome {
        // One after the other: never until the queue is empty.
        counter += 1
        if mutation == .dropsQueued, counter % 2 == 0 { return Outcome(-Int(ErrorNumber.again)) }
        return base.accept(listener, &accepted)
    }
    mutating func refuse(_ listener: Descriptor, _ peer: inout Endpoint) -> Outcome { base.refuse(listener, &peer) }
    mutating func localAddress(_ descriptor: Descriptor) -> Endpoint? { base.localAddress(descriptor) }
    mutating func originalDestination(_ descriptor: Descriptor) -> Endpoint? { base.originalDestination(descriptor) }
    mutating func interface(of descriptor: Descriptor) -> UInt32 { base.interface(of: descriptor) }
    mutating func isOwn(_ address: IPAddress) -> Bool { base.isOwn(address) }
    mutating func connect(_ backend: BackendAddress, _ way: UpstreamWay, on idle: Descriptor) -> Outcome {
        if mutation == .countsTwice {
            let candidate = Int(backend.endpoint.port) - 20_000
            (world.backendCells.baseAddress.unsafelyUnwrapped + candidate).pointee.active.add()
        }
        return base.connect(backend, way, on: mutation == .reusesAcross ? world.someSpare : idle)
    }
    mutating func guardAgainstDeath(_ descriptor: Descriptor) { base.guardAgainstDeath(descriptor) }
    mutating func capBuffers(_ descriptor: Descriptor) { base.capBuffers(descriptor) }
    mutating func pendingError(_ descriptor: Descriptor) -> Int32 { base.pendingError(descriptor) }
    mutating func silence(of descriptor: Descriptor) -> PeerSilence? {
        var silence = base.silence(of: descriptor)
        if mutation == .hearsVoices { silence?.isUnanswered = false }
        if mutation == .isDeaf, silence?.isOwed == true {
            silence?.isUnanswered = true
            silence?.lasts = .seconds(3600)
        }
        if mutation == .callsIdle { silence?.quiet = .seconds(3600) }
        return silence
    }

    mutating func probe(_ descriptor: Descriptor, every longest: TimeSpan?) { base.probe(descriptor, every: longest) }

    mutating func receive(_ descriptor: Descriptor, _ buffer: UnsafeMutableRawBufferPointer) -> Outcome {
        if mutation == .losesLastWords, world.isToldDead(descriptor) { return Outcome(0) }
        return base.receive(descriptor, buffer)
    }

    mutating func peek(_ descriptor: Descriptor, _ buffer: UnsafeMutableRawBufferPointer) -> Outcome {
        base.peek(descriptor, buffer)
    }
    mutating func discard(_ descriptor: Descriptor, _ count: Int) -> Outcome {
        mutation == .leavesPeeked ? Outcome(count) : base.discard(descriptor, count)
    }

    mutating func send(_ descriptor: Descriptor, _ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer)
        -> Outcome
    {
        let outcome = base.send(descriptor, first, second)
        guard outcome.value > 1 else { return outcome }
        if strikes(.doublesByte) { return Outcome(outcome.value - 1) }
        if outcome.value < first.count + second.count, mutation == .losesRest {
            return Outcome(first.count + second.count)
        }
        return outcome
    }

    mutating func splice(_ from: Descriptor, _ to: Descriptor, _ count: Int, more: Bool) -> Outcome {
        base.splice(from, to, count, more: more || mutation == .corksLast)
    }
    mutating func pacedSegment(_ descriptor: Descriptor) -> Int? { base.pacedSegment(descriptor) }
    mutating func makePipe(capacity: Int, writeEnd: inout Descriptor) -> Outcome {
        base.makePipe(capacity: capacity, writeEnd: &writeEnd)
    }

    mutating func shutdownWrite(_ descriptor: Descriptor) {
        if mutation != .forgetsFin { base.shutdownWrite(descriptor) }
    }
    mutating func close(_ descriptor: Descriptor) {
        if strikes(.leaksDescriptor) { return }
        base.close(descriptor)
        if strikes(.closesTwice) { base.close(descriptor) }
    }
    mutating func closeWithReset(_ descriptor: Descriptor) {
        if mutation == .releasesTwice, let count = world.shared.reservations.baseAddress { count.pointee.remove() }
        if mutation == .softensReset { base.close(descriptor) } else { base.closeWithReset(descriptor) }
    }

    mutating func setLowWater(_ descriptor: Descriptor, _ bytes: Int) {
        // A mark that is never lowered again.
        if mutation == .keepsMark, bytes == 1 { return }
        base.setLowWater(descriptor, bytes)
    }

    mutating func isDelivered(_ descriptor: Descriptor) -> Bool {
        base.isDelivered(descriptor) || mutation == .takesBack
    }

    mutating func disconnect(_ descriptor: Descriptor) -> Bool {
        if mutation == .releasesTwice, let count = world.shared.reservations.baseAddress { count.pointee.remove() }
        if mutation == .softensReset { return world.pretendDisconnect(descriptor) }
        return base.disconnect(descriptor)
    }

    mutating func watch(_ descriptor: Descriptor, _ key: EventKey) -> Outcome {
        let outcome = base.watch(descriptor, key)
        if key.kind == .upstream, strikes(.finTooEarly) { base.shutdownWrite(descriptor) }
        return outcome
    }
    mutating func watchLevel(_ descriptor: Descriptor, _ key: EventKey) -> Outcome {
        base.watchLevel(descriptor, key)
    }
    mutating func unwatch(_ descriptor: Descriptor) {
        if mutation != .keepsWatching { base.unwatch(descriptor) }
    }
}
