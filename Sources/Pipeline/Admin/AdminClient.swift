import CLinux
import Glibc
import Pipeline
import PipelineNode
import PipelineRuntime
import PipelineThreads

/// One client of the admin socket: its request as it comes, then the answer as it goes.
final class AdminClient {
    typealias Answer = (_ line: [UInt8], _ peer: AdminPeer) -> AdminResponse

    private let descriptor: Descriptor
    private let peer: AdminPeer
    private var request: [UInt8] = []
    private var response: AdminResponse?
    /// How much of the response's current piece has gone.
    private var sent = 0
    /// When a byte went either way.
    private var lastMove: Instant
    /// The end of an upload: one that comes in drops is no better than one that is silent.
    private var uploadEnd: Instant?
    /// The node has all that it needs, and answers once it is done.
    private var isWaiting = false
    var isOver = false

    init(_ descriptor: Descriptor, _ now: Instant) {
        self.descriptor = descriptor
        peer = AdminPeer(descriptor)
        lastMove = now
    }

    func close() { _ = cl_close(descriptor.number) }

    /// While its answer is prepared, only its end matters.
    var wait: cl_poll_item {
        if let stream { return cl_poll_item(descriptor.number, reads: stream.isReading, writes: stream.hasAnswers) }
        let isIdle = isPreparing || isWaiting
        return cl_poll_item(
            descriptor.number, reads: !isIdle && isReading, writes: !isIdle && !isReading)
    }

    private var stream: PushStream? { response?.stream }

    private var isReading: Bool { response == nil || response?.upload != nil }

    /// When its time is over; nil: it waits for the node.
    var deadline: Instant? {
        guard !isPreparing, !isWaiting else { return nil }
        if let stream { return stream.patience.map { lastMove + $0 } }
        let idle = lastMove + AdminServer.idleLimit
        return uploadEnd.map { min($0, idle) } ?? idle
    }

    /// An upload is answered, so that its author knows why; others have sent nothing, or take nothing.
    func expire(_ now: Instant) {
        guard let upload = response?.upload else {
            isOver = true
            return
        }
        lastMove = now
        respond(
            AdminResponse(
                AdminResponse.failure(
                    "the upload was too slow: \(upload.count) of \(upload.length) bytes came in time",
                    "send it without a pause")))
    }

    var isPreparing: Bool { response?.prepare != nil && !isOver }

    func excuse(_ busy: TimeSpan) {
        lastMove = lastMove + busy
        uploadEnd = uploadEnd.map { $0 + busy }
    }

    func prepare(until end: Instant, _ now: Instant) {
        guard let ready = response?.prepare?(end) else { return }
        response = ready
        lastMove = now
    }

    func move(_ got: UInt8, _ now: Instant, answer: Answer) {
        if let stream { return move(stream, got, now) }
        if isPreparing || isWaiting {
            isOver = true
        } else if response?.upload != nil {
            receive(now)
        } else if response == nil {
            read(now, answer: answer)
        } else if got & UInt8(CL_WRITABLE) == 0 {
            isOver = true
        }
        write(now)
    }

    /// One read per iteration, so that clients take turns.
    private func read(_ now: Instant, answer: Answer) {
        let count = withUnsafeTemporaryAllocation(byteCount: 16384, alignment: 16) { room in
            let count = cl_receive(descriptor.number, room.baseAddress, room.count)
            if count > 0 { request += room[..<count] }
            return count
        }
        if count == -Int(EAGAIN) { return }
        guard count >= 0 else {
            isOver = true
            return
        }
        lastMove = now
        let line = request.prefix { $0 != 0x0A }
        if line.count > AdminServer.requestLimit {
            respond(
                AdminResponse(
                    AdminResponse.failure(
                        "the request has more than \(AdminServer.requestLimit) bytes", "send one JSON object on a line")
                ))
        } else if line.count < request.count || (count == 0 && !request.isEmpty) {
            take(answer(Array(line), peer), behind: line.count, now)
        } else if count == 0 {
            isOver = true
        }
    }

    private func respond(_ response: AdminResponse) {
        self.response = response
        request = []
        uploadEnd = nil
        isWaiting = false
    }

    // MARK: What follows a request

    /// - Parameter length: of the request's line, behind which what has come belongs to the upload.
    private func take(_ response: AdminResponse, behind length: Int, _ now: Instant) {
        let rest = request.dropFirst(length + 1)
        respond(response)
        if let stream {
            rest.withUnsafeBytes { stream.take($0) }
            stream.hasNews = { [weak self] in self?.lastMove = Instant(nanoseconds: cl_now()) }
            return
        }
        guard response.whole != nil else { return }
        if let upload = response.upload {
            rest.withUnsafeBytes { upload.append($0) }
            uploadEnd = now + AdminServer.uploadLimit
            guard upload.isWhole else { return }
        }
        finish()
    }

    /// One read per iteration, so that clients take turns.
    private func receive(_ now: Instant) {
        guard let upload = response?.upload else { return }
        let count = upload.fill { room in
            cl_receive(descriptor.number, room.baseAddress, min(room.count, AdminServer.uploadPiece))
        }
        if count == -Int(EAGAIN) { return }
        lastMove = now
        if count > 0 {
            if upload.isWhole { finish() }
        } else if count == 0 {
            respond(
                AdminResponse(
                    AdminResponse.failure(
                        "the upload ended after \(upload.count) of \(upload.length) bytes", "send all of them")))
        } else {
            isOver = true
        }
    }

    /// Hands over what has come. The answer may come after the client has gone.
    private func finish() {
        let whole = response?.whole
        (response, uploadEnd, isWaiting) = (nil, nil, true)
        whole? { [weak self] response in
            guard let self, isWaiting, !isOver else { return }
            lastMove = Instant(nanoseconds: cl_now())
            respond(response)
        }
    }

    // MARK: One push after the other

    private func move(_ stream: PushStream, _ got: UInt8, _ now: Instant) {
        if stream.isReading {
            // One read per iteration, so that clients take turns.
            withUnsafeTemporaryAllocation(byteCount: AdminServer.streamPiece, alignment: 16) { room in
                let count = cl_receive(descriptor.number, room.baseAddress, room.count)
                if count == -Int(EAGAIN) { return }
                guard count >= 0 else {
                    isOver = true
                    return
                }
                lastMove = now
                if count == 0 { stream.end() } else { stream.take(UnsafeRawBufferPointer(rebasing: room[..<count])) }
            }
        } else if !stream.hasAnswers, got != 0 {
            isOver = true
        }
        write(stream)
    }

    /// What is there, as far as the client takes it.
    private func write(_ stream: PushStream) {
        guard !isOver else { return }
        let count = stream.give { cl_send(descriptor.number, $0.baseAddress, $0.count, nil, 0) }
        if count > 0 { lastMove = Instant(nanoseconds: cl_now()) }
        if count < 0, count != -Int(EAGAIN) { isOver = true }
        if stream.isOver { isOver = true }
    }

    /// One piece at most.
    private func write(_ now: Instant) {
        if let stream { return write(stream) }
        guard !isPreparing, response?.whole == nil, let piece = response?.first, !isOver else { return }
        let count = piece.withUnsafeBytes { bytes in
            let rest = bytes[sent...]
            return cl_send(
                descriptor.number, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count, nil, 0)
        }
        if count == -Int(EAGAIN) { return }
        guard count >= 0 else {
            isOver = true
            return
        }
        lastMove = now
        sent += count
        guard sent >= piece.count else { return }
        sent = 0
        if let next = response?.more?() { response?.first = next } else { isOver = true }
    }
}
