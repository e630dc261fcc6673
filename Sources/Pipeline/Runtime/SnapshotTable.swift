import Pipeline

/// The snapshots that a worker's connections run on: the newest, and older ones until their last connection ends.
struct SnapshotTable: ~Copyable {
    struct Entry {
        let snapshot: UnsafePointer<Snapshot>
        /// One state per stage of the program, by ``Stage/stateIndex``. Shared by entries of the same program.
        let states: UnsafeMutablePointer<UnsafeMutableRawPointer>
        var connections = 0
        var isUsed = true
    }

    /// How many older snapshots may still have connections; when all are taken, adopting waits.
    static let capacity = 256
    private let entries: UnsafeMutableBufferPointer<Entry>
    private var count = 0
    private(set) var current: UInt16 = 0

    init(first: UnsafePointer<Snapshot>) {
        entries = .allocate(capacity: SnapshotTable.capacity)
        _ = adopt(first)
    }

    deinit {
        for i in 0..<count where entries[i].isUsed { release(i) }
        entries.deallocate()
    }

    subscript(_ index: UInt16) -> UnsafeMutablePointer<Entry> {
        entries.baseAddress.unsafelyUnwrapped + Int(index)
    }

    /// Whether ``adopt(_:)`` would succeed.
    var hasRoom: Bool {
        if count < SnapshotTable.capacity { return true }
        for i in 0..<count where !entries[i].isUsed { return true }
        return false
    }

    /// False if there is no room; try again when a connection has ended.
    mutating func adopt(_ snapshot: UnsafePointer<Snapshot>) -> Bool {
        var index = count
        for i in 0..<count where !entries[i].isUsed {
            index = i
            break
        }
        guard index < SnapshotTable.capacity else { return false }
        let entry = Entry(snapshot: snapshot, states: statesFor(snapshot))
        entries.initializeElement(at: index, to: entry)
        if index == count { count += 1 }
        let old = Int(current)
        current = UInt16(index)
        if old != index { retire(old) }
        return true
    }

    mutating func began() -> UInt16 {
        entries[Int(current)].connections += 1
        return current
    }

    mutating func ended(_ index: UInt16) {
        entries[Int(index)].connections -= 1
        if index != current { retire(Int(index)) }
    }

    /// The oldest generation that anything here still refers to.
    var oldestGeneration: UInt64 {
        var oldest = UInt64.max
        for i in 0..<count where entries[i].isUsed {
            oldest = min(oldest, entries[i].snapshot.pointee.generation)
        }
        return oldest
    }

    /// The shortest that a stage of anything here asks for (``Filter/progressInterval(_:)``).
    var progressInterval: TimeSpan? {
        var shortest: TimeSpan?
        for i in 0..<count where entries[i].isUsed {
            guard let interval = entries[i].snapshot.pointee.progressInterval else { continue }
            shortest = min(shortest ?? interval, interval)
        }
        return shortest
    }

    /// Flushes every state of stages that hear of living connections, each once. What the one has left that has most.
    func flush(isLast: Bool) -> FlushOutcome {
        var left = FlushOutcome.done
        for i in 0..<count where entries[i].isUsed && entries[i].snapshot.pointee.progressInterval != nil {
            guard !(0..<i).contains(where: { entries[$0].isUsed && entries[$0].states == entries[i].states }) else {
                continue
            }
            for chain in entries[i].snapshot.pointee.chains.buffer where chain.progressInterval != nil {
                for stage in chain.stages.buffer where stage.progressInterval != nil {
                    let state = entries[i].states[stage.stateIndex]
                    let outcome = stage.filter.flushErased(stage.settings, state, isLast: isLast)
                    if outcome.rawValue > left.rawValue { left = outcome }
                }
            }
        }
        return left
    }

    private mutating func retire(_ index: Int) {
        guard entries[index].isUsed, entries[index].connections == 0 else { return }
        release(index)
    }

    /// A new route table on the same program keeps the stages' state.
    private func statesFor(_ snapshot: UnsafePointer<Snapshot>) -> UnsafeMutablePointer<UnsafeMutableRawPointer> {
        let program = snapshot.pointee.program.toOpaque()
        for i in 0..<count where entries[i].isUsed && entries[i].snapshot.pointee.program.toOpaque() == program {
            return entries[i].states
        }
        let chains = snapshot.pointee.chains
        var total = 0
        for chain in chains.buffer { total += chain.stages.count }
        let states = UnsafeMutablePointer<UnsafeMutableRawPointer>.allocate(capacity: max(total, 1))
        for chain in chains.buffer {
            for stage in chain.stages.buffer {
                (states + stage.stateIndex).initialize(to: stage.filter.makeStateErased(stage.settings))
            }
        }
        return states
    }

    private func release(_ index: Int) {
        entries[index].isUsed = false
        let states = entries[index].states
        for i in 0..<count where entries[i].isUsed && entries[i].states == states { return }
        for chain in entries[index].snapshot.pointee.chains.buffer {
            for stage in chain.stages.buffer { stage.filter.disposeStateErased(states[stage.stateIndex]) }
        }
        states.deallocate()
    }
}
