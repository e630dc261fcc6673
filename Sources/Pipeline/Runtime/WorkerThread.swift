import CLinux
import Pipeline
import PipelineThreads

/// A worker that could not be made or started. Nothing of it serves.
package struct WorkerStartError: Error, Sendable, CustomStringConvertible {
    /// Its name in messages: `worker 3`, `the health prober`.
    package let component: String
    let call: String
    /// An errno; 0: there is none.
    let error: Int32

    package init(worker: Int, call: String, error: Int32) {
        self.init(component: "worker \(worker)", call: call, error: error)
    }
    package init(component: String, call: String, error: Int32) {
        self.component = component
        self.call = call
        self.error = error
    }

    package var description: String {
        "can't start \(component): \(call) failed\(error == 0 ? "" : " (\(kernelError(error)))"); "
            + "\(remedy)"
    }

    private var remedy: String {
        switch error {
        case ErrorNumber.noMemory, 0: "give the process more memory, or lower `connections` or `workers`"
        case ErrorNumber.again: "raise the limit of threads (systemd: TasksMax=), or lower `workers`"
        case ErrorNumber.tooManyFilesInSystem, ErrorNumber.tooManyFiles:
            "raise the limit of open files (systemd: LimitNOFILE=)"
        default: "see `errno \(errorName(error))`"
        }
    }
}

/// A worker's counters, for readers that may outlive it, such as the log.
package final class CounterMemory: @unchecked Sendable {
    private let memory: UnsafeMutablePointer<WorkerCounters>
    /// Valid as long as this object.
    package var counters: UnsafePointer<WorkerCounters> { UnsafePointer(memory) }

    init(_ counters: consuming WorkerCounters) {
        memory = .allocate(capacity: 1)
        memory.initialize(to: counters)
    }

    deinit {
        memory.deinitialize(count: 1)
        memory.deallocate()
    }
}

/// One worker on its own thread, pinned to a core, with its own listeners, counters, log ring and mailbox.
///
/// Threading: made, started, woken and joined by one control thread; ``counters`` for anyone, ``ring`` for one reader.
/// Ownership: the worker duplicates the descriptors of its listeners; the originals stay control's. A snapshot must
/// stay valid until the next one is applied. A started worker is joined before it is released, and is released before
/// the programs that it ran, since its stages return shared objects then.
package final class WorkerThread: @unchecked Sendable {
    /// Enough for stages that parse on the stack; untouched pages cost nothing.
    private static let stackBytes = 1 << 20

    package let index: Int
    package let ring: RecordRing
    package let mailbox: Mailbox
    package var counters: UnsafePointer<WorkerCounters> { counterMemory.counters }
    package let counterMemory: CounterMemory
    private let worker: UnsafeMutablePointer<Worker<LinuxKernel>>
    private let cpu: Int32?
    private let ownsDescriptors: Bool
    private var barrier = Descriptor.none
    private var thread: UInt64?

    /// Makes all that the worker needs, on the calling thread; it runs after ``start(barrier:)``.
    ///
    /// - Parameters:
    ///   - cpu: the core to stay on; nil: wherever the scheduler likes.
    ///   - listeners: this worker's own; to stay open until it has taken them (``Mailbox/appliedGeneration``).
    ///   - services: what the node lends to stages.
    package init(
        index: Int, cpu: Int32?, settings: NodeSettings, limits: WorkerLimits, listeners: [WorkerListener],
        snapshot: UnsafePointer<Snapshot>, services: Services
    ) throws(WorkerStartError) {
        let wake = cl_eventfd()
        guard wake >= 0 else { throw WorkerStartError(worker: index, call: "eventfd", error: -wake) }
        let kernel: LinuxKernel
        do throws(KernelError) {
            kernel = try LinuxKernel(settings)
        } catch {
            _ = cl_close(wake)
            throw WorkerStartError(worker: index, call: error.call, error: error.error)
        }
        let counterMemory = CounterMemory(
            WorkerCounters(reasons: snapshot.pointee.program.takeUnretainedValue().reasons.count))
        let ring = RecordRing()
        let mailbox = Mailbox(wakeDescriptor: Descriptor(wake))
        let made = Worker(
            kernel: kernel, settings: settings, limits: limits, index: UInt16(clamping: index), listeners: listeners,
            snapshot: snapshot, services: services, counters: counterMemory.counters, ring: ring, mailbox: mailbox)
        guard let made else {
            _ = cl_close(wake)
            throw WorkerStartError(worker: index, call: "reserving memory", error: 0)
        }
        worker = .allocate(capacity: 1)
        worker.initialize(to: made)
        self.index = index
        self.cpu = cpu
        ownsDescriptors = settings.ownDescriptors
        self.ring = ring
        self.mailbox = mailbox
        self.counterMemory = counterMemory
    }

    deinit {
        // A running worker must keep its memory.
        guard thread == nil else {
            _ = Unmanaged.passRetained(counterMemory)
            return
        }
        worker.pointee.withKernel { $0.shutDown() }
        worker.deinitialize(count: 1)
        worker.deallocate()
        _ = cl_close(mailbox.wakeDescriptor.number)
    }

    /// All workers of the node, this one included: those that wait for a place tell each other. Before any of them starts.
    package func know(_ workers: [WorkerThread]) {
        let wakes = workers.map(\.mailbox.wakeDescriptor)
        worker.pointee.withKernel { $0.know(wakes) }
    }

    /// Starts the thread. It serves nothing until the other end of `barrier`, a pipe, is closed: so either all workers
    /// of a node begin, or none does.
    package func start(barrier: Descriptor) throws(WorkerStartError) {
        self.barrier = barrier
        var handle: UInt64 = 0
        let context = Unmanaged.passUnretained(self).toOpaque()
        let failed = cl_thread_start(
            &handle, WorkerThread.stackBytes,
            { context in
                guard let context else { return }
                Unmanaged<WorkerThread>.fromOpaque(context).takeUnretainedValue().body()
            }, context)
        guard failed == 0 else { throw WorkerStartError(worker: index, call: "pthread_create", error: -failed) }
        thread = handle
    }

    private func body() {
        _ = cl_name_thread("worker-\(index)")
        if let cpu { _ = cl_pin(cpu) }
        _ = cl_wait_for_end(barrier.number)
        if ownsDescriptors {
            let wake = mailbox.wakeDescriptor
            worker.pointee.withKernel { $0.ownDescriptors(and: wake) }
        }
        worker.pointee.run()
    }

    /// Makes the worker look into its mailbox now.
    package func wake() { _ = cl_eventfd_signal(mailbox.wakeDescriptor.number) }

    /// Waits for the worker to end, which it does once its mailbox says so and its connections are over.
    package func join() {
        guard let handle = thread else { return }
        _ = cl_thread_join(handle)
        thread = nil
    }
}
