import Pipeline
import PipelineNode
import PipelineRouting

/// Pushes that a client sends one behind the other on one connection: each with its answer, a line, in their order; many on
/// their way at once (docs/adr/0112). What a client may have on its way, and what it leaves unread, is bounded: beyond that
/// nothing more is read from it.
///
/// Threading: the control thread.
final class PushStream {
    static let mostOnTheWay = 1024
    static let mostBytesOnTheWay = 8 << 20
    static let mostUnread = 1 << 20

    /// The place of an answer.
    private final class Place {
        var answer: [UInt8]?
        let bytes: Int
        init(bytes: Int) { self.bytes = bytes }
    }

    private enum Input {
        case request
        case body(StateUpload, isOlder: Bool, isLast: Bool)
        /// The body of a push that was refused before it came.
        case skipped(Int, isLast: Bool)
        case ended
    }

    private let door: any StateDoor
    private let uploads: UploadRoom
    private let peer: AdminPeer
    private var input = Input.request
    /// What has come of a request.
    private var line: [UInt8] = []
    /// In order, those that are not given yet.
    private var places: [Place] = []
    private var bytesOnTheWay = 0
    private var output: [UInt8] = []
    private var given = 0
    /// Called when there is an answer.
    var hasNews: () -> Void = {}

    /// - Parameters:
    ///   - length, isOlder: of the first push, whose request has come.
    init(_ door: any StateDoor, _ uploads: UploadRoom, _ peer: AdminPeer, length: Int, isOlder: Bool) {
        (self.door, self.uploads, self.peer) = (door, uploads, peer)
        begin(length, isOlder: isOlder, isLast: false)
    }

    // MARK: What is wanted of the client

    var isReading: Bool {
        if case .ended = input { return false }
        return places.count < PushStream.mostOnTheWay && bytesOnTheWay < PushStream.mostBytesOnTheWay
            && output.count - given < PushStream.mostUnread
    }
    var hasAnswers: Bool { given < output.count }
    /// All is said.
    var isOver: Bool {
        guard case .ended = input else { return false }
        return places.isEmpty && !hasAnswers
    }
    /// How long the client may do nothing; nil: it waits for the node.
    var patience: TimeSpan? {
        if hasAnswers { return AdminServer.idleLimit }
        guard isReading else { return nil }
        guard case .request = input, line.isEmpty else { return AdminServer.idleLimit }
        return places.isEmpty ? AdminServer.streamLimit : nil
    }

    // MARK: In

    func take(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes[...]
        while !rest.isEmpty {
            switch input {
            case .ended: return
            case .request:
                let end = rest.firstIndex(of: 0x0A)
                line.append(contentsOf: rest[..<(end ?? rest.endIndex)])
                rest = end.map { rest[($0 + 1)...] } ?? rest[rest.endIndex...]
                if line.count > AdminServer.requestLimit {
                    refuse(
                        "the request has more than \(AdminServer.requestLimit) bytes", "send one JSON object on a line")
                } else if end != nil {
                    request()
                }
            case .body(let upload, let isOlder, let isLast):
                let count = min(rest.count, upload.length - upload.count)
                upload.append(UnsafeRawBufferPointer(rebasing: rest.prefix(count)))
                rest = rest.dropFirst(count)
                guard upload.isWhole else { break }
                input = isLast ? .ended : .request
                push(upload, isOlder: isOlder)
            case .skipped(let left, let isLast):
                let count = min(rest.count, left)
                rest = rest.dropFirst(count)
                input = count < left ? .skipped(left - count, isLast: isLast) : isLast ? .ended : .request
            }
        }
    }

    /// The client sends nothing more.
    func end() {
        switch input {
        case .ended: break
        case .request where line.isEmpty: input = .ended
        case .request: refuse("the request ended early", "send one JSON object on a line")
        case .body(let upload, _, _):
            refuse("the push ended after \(upload.count) of \(upload.length) bytes", "send all of them")
        case .skipped: input = .ended
        }
    }

    private func request() {
        let line = line
        self.line = []
        do throws(AdminRequest.Fault) {
            guard case .apply(let length, let isOlder, let goesOn) = try AdminRequest(line).command else {
                return refuse("behind a push comes another one", "use a connection of its own for anything else")
            }
            begin(length, isOlder: isOlder, isLast: !goesOn)
        } catch {
            refuse(error.problem, error.remedy)
        }
    }

    private func begin(_ length: Int, isOlder: Bool, isLast: Bool) {
        do throws(StateRefusal) {
            if let refusal = door.pushRefusal { throw refusal }
            input = .body(try uploads.make(length), isOlder: isOlder, isLast: isLast)
        } catch {
            input = .skipped(length, isLast: isLast)
            give(AdminResponse.failure(error.problem, error.remedy))
        }
    }

    private func push(_ upload: StateUpload, isOlder: Bool) {
        let place = Place(bytes: upload.length)
        places.append(place)
        bytesOnTheWay += place.bytes
        door.apply(upload, StatePush(peer: peer.named, isOlder: isOlder)) { [weak self] answer in
            place.answer = AdminResponse(answer, isText: false).first
            self?.collect()
        }
    }

    /// What comes behind it can't be told apart any more.
    private func refuse(_ problem: String, _ remedy: String) {
        input = .ended
        give(AdminResponse.failure(problem, remedy))
    }

    private func give(_ answer: [UInt8]) {
        let place = Place(bytes: 0)
        place.answer = answer
        places.append(place)
        collect()
    }

    // MARK: Out

    /// Answers whose turn it is.
    private func collect() {
        var count = 0
        while count < places.count, let answer = places[count].answer {
            output.append(contentsOf: answer)
            bytesOnTheWay -= places[count].bytes
            count += 1
        }
        guard count > 0 else { return }
        places.removeFirst(count)
        hasNews()
    }

    /// - Parameter send: says how much it took, or less than 0.
    func give(_ send: (UnsafeRawBufferPointer) -> Int) -> Int {
        guard hasAnswers else { return 0 }
        let count = output.withUnsafeBytes { send(UnsafeRawBufferPointer(rebasing: $0[given...])) }
        guard count > 0 else { return count }
        given += count
        if given == output.count {
            output.removeAll(keepingCapacity: output.capacity <= PushStream.mostKept)
            given = 0
        }
        return count
    }
    private static let mostKept = 1 << 16
}
