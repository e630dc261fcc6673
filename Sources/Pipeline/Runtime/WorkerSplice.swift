import Pipeline

/// Streams that keep filling the buffer are spliced: moved between sockets through a pipe, without copying.
extension Worker {
    mutating func fillPipe(
        _ index: Int, _ flow: UnsafeMutablePointer<Flow>, _ from: Descriptor, _ to: Descriptor
    ) -> Step {
        if flow.pointee.pipe == Flow.none {
            flow.pointee.pipe = pipes.take(&kernel)
            guard flow.pointee.pipe != Flow.none else {
                stopSplicing(flow, from)
                return .moved(0)
            }
            counters.pointee.add(.spliceEntered)
        }
        let outcome = kernel.splice(from, pipes[flow.pointee.pipe].writeEnd, PipePool.pipeSize, more: false)
        if outcome.isError {
            guard outcome.error == ErrorNumber.again else {
                guard !ErrorNumber.isOfPeer(outcome.error) else { return .sourceBroken(outcome.error) }
                // No memory for the pipe's pages: the stream continues with copies, which need none.
                stopSplicing(flow, from)
                return .moved(0)
            }
            if let error = flow.pointee.sourceError { return .sourceBroken(error) }
            flow.pointee.state.remove(.readable)
            awaitMore(index, flow, from)
            return .wait
        }
        if outcome.value == 0 {
            flow.pointee.state.insert(.eof)
            return .moved(0)
        }
        flow.pointee.pipeBytes = UInt32(outcome.value)
        noteSplice(flow, from, to, outcome.value)
        return .moved(outcome.value)
    }

    private mutating func noteSplice(
        _ flow: UnsafeMutablePointer<Flow>, _ from: Descriptor, _ to: Descriptor, _ count: Int
    ) {
        flow.pointee.state.insert(.splicedLately)
        if count < Self.smallSplice {
            flow.pointee.smallSplices &+= 1
            if flow.pointee.smallSplices >= Self.smallSplicesToCopy { stopSplicing(flow, from) }
        } else {
            flow.pointee.smallSplices = 0
            if count >= Self.largeSplice { startCoalescing(flow, from, to) }
        }
    }

    private static var smallSplice: Int { 16384 }
    private static var smallSplicesToCopy: UInt8 { 8 }
    private static var largeSplice: Int { 65536 }

    mutating func drainPipe(_ flow: UnsafeMutablePointer<Flow>, _ to: Descriptor) -> Step {
        let held = Int(flow.pointee.pipeBytes)
        let piece = paces.coalescing > 1 ? min(held, Int(flow.pointee.burst)) : held
        let outcome = kernel.splice(pipes[flow.pointee.pipe].readEnd, to, piece, more: piece < held)
        if outcome.isError {
            guard outcome.error == ErrorNumber.again else { return .sinkBroken(outcome.error) }
            flow.pointee.state.remove(.writable)
            return .wait
        }
        guard outcome.value > 0 else { return .sinkBroken(ErrorNumber.brokenPipe) }
        flow.pointee.pipeBytes -= UInt32(outcome.value)
        flow.pointee.total += Int64(outcome.value)
        return outcome.value == piece && piece < held ? .yield : .moved(0)
    }

    private mutating func stopSplicing(_ flow: UnsafeMutablePointer<Flow>, _ from: Descriptor) {
        stopCoalescing(flow, from)
        flow.pointee.state.remove(.splicing)
        flow.pointee.fullReads = 0
        flow.pointee.smallSplices = 0
        counters.pointee.add(.spliceLeft)
    }

    mutating func releasePipe(_ flow: UnsafeMutablePointer<Flow>) {
        guard flow.pointee.pipe != Flow.none else { return }
        if flow.pointee.pipeBytes > 0 {
            pipes.discard(flow.pointee.pipe, &kernel)
        } else {
            pipes.give(flow.pointee.pipe)
        }
        flow.pointee.pipe = Flow.none
        flow.pointee.pipeBytes = 0
    }

    // MARK: Coalescing

    /// A stream of large reads coalesces in its socket before it is moved, so that each wakeup, here and at the
    /// receiver, covers more bytes (docs/adr/0031). Bytes wait for at most twice `coalesce`; a stream that pauses is no
    /// longer delayed.
    private mutating func startCoalescing(
        _ flow: UnsafeMutablePointer<Flow>, _ from: Descriptor, _ to: Descriptor
    ) {
        guard paces.mayBegin(flow) else { return }
        paces.begin(flow, burst: Self.burst(segment: kernel.pacedSegment(to)))
        kernel.setLowWater(from, PipePool.pipeSize)
    }

    /// Under BBR, a stream gets one GSO segment of up to 64 KiB per iteration, so that no pacing timer is armed: by its
    /// next turn the pacing time has usually passed (docs/adr/0036).
    static func burst(segment: Int?) -> UInt32 {
        guard let segment, segment > 0 else { return .max }
        return UInt32(clamping: max(segment, largestSegment - largestSegment % segment))
    }

    /// The largest GSO segment with headers.
    private static var largestSegment: Int { 65536 - 321 }

    private mutating func stopCoalescing(_ flow: UnsafeMutablePointer<Flow>, _ from: Descriptor) {
        if paces.leave(flow) { kernel.setLowWater(from, 1) }
    }

    /// The socket has less than its low-water mark.
    private mutating func awaitMore(_ index: Int, _ flow: UnsafeMutablePointer<Flow>, _ from: Descriptor) {
        if !paces.awaitMore(slab.slots, index, flow, now) { stopCoalescing(flow, from) }
    }

    /// A timer of a waiting or coalescing connection is due.
    mutating func paceDue(_ index: Int) {
        paces.due(slab.slots, index, now)
        if iterationBytes < Self.iterationShare { pumpBoth(index) } else { enqueue(index) }
        check(index)
    }
}
