import Pipeline

/// The programs of a worker's connections: the newest, one that may take a share of new connections beside it, and each
/// older one until its last connection ends, in any order.
struct ProgramTable: ~Copyable {
    struct Entry {
        let program: Unmanaged<Program>
        let chains: FrozenArray<Chain>
        let progressInterval: TimeSpan?
        /// One state per stage, by ``Stage/stateIndex``.
        let states: UnsafeMutablePointer<UnsafeMutableRawPointer>
        var connections = 0
        /// The connections whose stages have not all decided.
        var undecided = 0
        var isUsed = true
    }

    /// Grows when a program is applied and all places are taken; never by a connection.
    private var entries: UnsafeMutableBufferPointer<Entry>
    private var count = 0
    private(set) var current: Int32 = 0
    /// The one that a share of new connections runs on; ``Flow/none``: there is none.
    private(set) var canary = Flow.none
    /// Connections of older programs whose stages have not all decided.
    private(set) var undecidedOnOlder = 0
    private let context: StageContext

    /// - Parameter context: the worker, for stages that share its resources.
    init(first: UnsafePointer<Snapshot>, _ context: StageContext = StageContext(worker: 0)) {
        self.context = context
        entries = .allocate(capacity: 16)
        apply(first)
    }

    deinit {
        for i in 0..<count where entries[i].isUsed { release(i) }
        entries.deallocate()
    }

    subscript(_ index: Int32) -> UnsafeMutablePointer<Entry> {
        entries.baseAddress.unsafelyUnwrapped + Int(index)
    }

    /// New connections run on this snapshot's program from now on, and a share of them on its canary. A program that the
    /// worker already has keeps its worker memory.
    mutating func apply(_ snapshot: UnsafePointer<Snapshot>) {
        let (oldCurrent, oldCanary) = (current, canary)
        current = place(of: snapshot.pointee.program)
        canary = snapshot.pointee.canary.map { place(of: $0.program) } ?? Flow.none
        guard current != oldCurrent || canary != oldCanary else { return }
        for old in [oldCurrent, oldCanary] where old != Flow.none && !isForNewcomers(old) { retire(old) }
        undecidedOnOlder = 0
        for index in 0..<Int32(truncatingIfNeeded: count) where self[index].pointee.isUsed && !isForNewcomers(index) {
            undecidedOnOlder += self[index].pointee.undecided
        }
    }

    private func isForNewcomers(_ index: Int32) -> Bool { index == current || index == canary }

    private mutating func place(of program: Unmanaged<Program>) -> Int32 {
        let isSame = { (entry: Entry) in entry.isUsed && entry.program.toOpaque() == program.toOpaque() }
        // Mostly only the routes have changed.
        if count > 0, isSame(self[current].pointee) { return current }
        if let known = entries[..<count].firstIndex(where: isSame) { return Int32(truncatingIfNeeded: known) }
        return add(program)
    }

    private mutating func add(_ program: Unmanaged<Program>) -> Int32 {
        let free = (0..<count).first { !entries[$0].isUsed }
        let index = free ?? count
        if index == entries.count { grow() }
        let chains = program._withUnsafeGuaranteedRef { program in
            program.users.add()
            return program.chains
        }
        let interval = chains.buffer.compactMap(\.progressInterval).min()
        let entry = Entry(program: program, chains: chains, progressInterval: interval, states: states(chains))
        (entries.baseAddress.unsafelyUnwrapped + index).initialize(to: entry)
        if index == count { count += 1 }
        return Int32(truncatingIfNeeded: index)
    }

    private mutating func grow() {
        let larger = UnsafeMutableBufferPointer<Entry>.allocate(capacity: entries.count * 2)
        _ = larger.moveInitialize(fromContentsOf: entries[..<count])
        entries.deallocate()
        entries = larger
    }

    // MARK: Connections

    mutating func began() -> Int32 {
        self[current].pointee.connections += 1
        self[current].pointee.undecided += 1
        return current
    }

    /// A connection that has just begun runs on the canary instead.
    mutating func moveToCanary() -> Int32 {
        assert(canary != Flow.none, "S16: a connection runs on a canary that is not there")
        self[current].pointee.connections -= 1
        self[current].pointee.undecided -= 1
        self[canary].pointee.connections += 1
        self[canary].pointee.undecided += 1
        return canary
    }

    /// All stages have decided on a connection of that program. Once a connection.
    mutating func decided(_ index: Int32) {
        self[index].pointee.undecided -= 1
        if !isForNewcomers(index) { undecidedOnOlder -= 1 }
    }

    mutating func ended(_ index: Int32) {
        self[index].pointee.connections -= 1
        if !isForNewcomers(index) { retire(index) }
    }

    // MARK: Accounts

    /// The shortest ``Filter/progressInterval(_:)`` of any stage here.
    var progressInterval: TimeSpan? {
        var shortest: TimeSpan?
        for i in 0..<count where entries[i].isUsed {
            guard let interval = entries[i].progressInterval else { continue }
            shortest = min(shortest ?? interval, interval)
        }
        return shortest
    }

    /// Flushes the worker memory of every stage with a progress interval. Returns the worst outcome.
    func flush(isLast: Bool) -> FlushOutcome {
        var left = FlushOutcome.done
        for i in 0..<count where entries[i].isUsed && entries[i].progressInterval != nil {
            for chain in entries[i].chains.buffer where chain.progressInterval != nil {
                for stage in chain.stages.buffer where stage.progressInterval != nil {
                    let state = entries[i].states[stage.stateIndex]
                    let outcome = stage.filter.flushErased(stage.settings, state, isLast: isLast)
                    if outcome.rawValue > left.rawValue { left = outcome }
                }
            }
        }
        return left
    }

    // MARK: Ends

    private mutating func retire(_ index: Int32) {
        guard self[index].pointee.isUsed, self[index].pointee.connections == 0 else { return }
        release(Int(index))
    }

    private func states(_ chains: FrozenArray<Chain>) -> UnsafeMutablePointer<UnsafeMutableRawPointer> {
        let total = chains.buffer.reduce(0) { $0 + $1.stages.count }
        let states = UnsafeMutablePointer<UnsafeMutableRawPointer>.allocate(capacity: max(total, 1))
        for chain in chains.buffer {
            for stage in chain.stages.buffer {
                (states + stage.stateIndex).initialize(to: stage.filter.makeStateErased(stage.settings, context))
            }
        }
        return states
    }

    /// Control may free the program right after.
    private func release(_ index: Int) {
        let entry = entries.baseAddress.unsafelyUnwrapped + index
        entry.pointee.isUsed = false
        for chain in entry.pointee.chains.buffer {
            for stage in chain.stages.buffer { stage.filter.disposeStateErased(entry.pointee.states[stage.stateIndex]) }
        }
        entry.pointee.states.deallocate()
        entry.pointee.program._withUnsafeGuaranteedRef { $0.users.remove() }
    }
}
