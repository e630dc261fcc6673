import Pipeline

/// The programs of a worker's connections: the newest, and each older one until its last connection ends, in any order.
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

    /// New connections run on this snapshot's program from now on. A program that the worker already has keeps its
    /// worker memory.
    mutating func apply(_ snapshot: UnsafePointer<Snapshot>) {
        let program = snapshot.pointee.program
        if count > 0, self[current].pointee.program.toOpaque() == program.toOpaque() { return }
        let old = current
        let known = (0..<count).first { entries[$0].isUsed && entries[$0].program.toOpaque() == program.toOpaque() }
        if let known {
            undecidedOnOlder -= entries[known].undecided
            current = Int32(truncatingIfNeeded: known)
        } else {
            current = add(snapshot)
        }
        guard count > 1 else { return }
        if old != current, self[old].pointee.isUsed {
            undecidedOnOlder += self[old].pointee.undecided
            retire(old)
        }
    }

    private mutating func add(_ snapshot: UnsafePointer<Snapshot>) -> Int32 {
        let free = (0..<count).first { !entries[$0].isUsed }
        let index = free ?? count
        if index == entries.count { grow() }
        snapshot.pointee.program._withUnsafeGuaranteedRef { $0.users.add() }
        let entry = Entry(
            program: snapshot.pointee.program, chains: snapshot.pointee.chains,
            progressInterval: snapshot.pointee.progressInterval, states: states(snapshot.pointee.chains))
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

    /// All stages have decided on a connection of that program. Once a connection.
    mutating func decided(_ index: Int32) {
        self[index].pointee.undecided -= 1
        if index != current { undecidedOnOlder -= 1 }
    }

    mutating func ended(_ index: Int32) {
        self[index].pointee.connections -= 1
        if index != current { retire(index) }
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
