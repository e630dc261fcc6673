import Pipeline
import Synchronization

extension LimitHandle {
    /// An entry is reused only this long after its burst was refilled: workers read the clock once an iteration, so one
    /// may be behind another.
    static let ageing: UInt64 = 1_000_000_000
    /// Retries of one connection's compare-and-swap before it is refused. Each failure is another thread's success.
    private static let rounds = 1024

    /// Counts a connection of `key` that begins at `now`, if it may. Lock-free; allocates nothing.
    public func admit(_ key: LimitKeyBits, at now: Instant) -> LimitAnswer {
        let place = place(of: key)
        let time = LimitWord.time(now)
        for _ in 0..<LimitHandle.rounds {
            if let (slot, word) = find(key, place) {
                if LimitWord.isTentative(word) {
                    settle(slot, word, key, place, time)
                } else if let answer = charge(slot, key, time) {
                    return answer
                }
            } else if !insert(key, place, time), find(key, place) == nil {
                break
            }
        }
        counters.pointee.refused.wrappingAdd(1, ordering: .relaxed)
        return .refused(.tableFull)
    }

    /// The state of `key` at `now`. Changes nothing.
    public func look(_ key: LimitKeyBits, at now: Instant) -> LimitState {
        let place = place(of: key)
        let time = LimitWord.time(now)
        guard let (slot, word) = find(key, place) else {
            let hasRoom = slots(of: place).contains { isFree($0, $0.word, time) }
            return LimitState(
                isKnown: false, available: interval > 0 ? tolerance / interval : nil, active: 0,
                refusal: hasRoom ? nil : .tableFull)
        }
        let ahead = LimitWord.isLive(word) && word > time ? word - time : 0
        let available = interval > 0 ? (tolerance - min(ahead, tolerance)) / interval : nil
        let active = isHeld ? slot.reservations.pointee.current : 0
        let refusal: LimitRefusal? =
            available == 0 ? .rateExceeded : active >= concurrent ? .tooManyConnections : nil
        return LimitState(isKnown: true, available: available, active: active, refusal: refusal)
    }

    // MARK: An entry that is there

    /// The slot that has `key`, live or nearly so, and its word as it was read before the key was.
    func find(_ key: LimitKeyBits, _ place: LimitPlace) -> (LimitSlot, UInt64)? {
        find(key, place.tag, place.first) ?? (place.second == place.first ? nil : find(key, place.tag, place.second))
    }

    @inline(__always) private func find(_ key: LimitKeyBits, _ tag: UInt64, _ bucket: Int) -> (LimitSlot, UInt64)? {
        for way in 0..<LimitHandle.ways {
            let slot = slot(bucket &* LimitHandle.ways &+ way)
            guard slot.tag.pointee.load(ordering: .sequentiallyConsistent) == tag else { continue }
            let word = slot.word
            if LimitWord.isLive(word) || LimitWord.isTentative(word), slot.holdsKey(key) { return (slot, word) }
        }
        return nil
    }

    /// GCRA on a slot that had `key` a moment ago; nil: it has it no longer.
    ///
    /// A word only grows, and a slot that changes hands changes its word: an exchange that succeeds proves that the
    /// key read before it is still the slot's. A refusal is proved by reading the same word again.
    private func charge(_ slot: LimitSlot, _ key: LimitKeyBits, _ now: UInt64) -> LimitAnswer? {
        let reservations = slot.reservations
        var isReserved = false
        var answer: LimitAnswer?
        var word = slot.word
        while LimitWord.isLive(word), slot.holdsKey(key) {
            // Without a rate the word is when the key was last seen.
            let next =
                interval > 0
                ? TokenBucket.after(word, now, cost: interval, burst: tolerance) : max(word &+ 1, now)
            if next == nil {
                answer = .refused(.rateExceeded)
            } else if isHeld, !isReserved, !reservations.pointee.tryAdd(limit: concurrent) {
                answer = .refused(.tooManyConnections)
            } else if let next {
                isReserved = isHeld
                let (done, seen) = slot.exchange(word, next)
                if done {
                    return .admitted(
                        reservation: isHeld ? reservations : nil, bucket: isPaced ? slot.bucket : nil)
                }
                word = seen
                continue
            }
            let again = slot.word
            if again == word { break }
            answer = nil
            word = again
        }
        if isReserved { reservations.pointee.remove() }
        return answer
    }

    // MARK: A new entry

    private func slots(of place: LimitPlace) -> [LimitSlot] {
        (0..<LimitHandle.ways).map { slot(place.first &* LimitHandle.ways &+ $0) }
            + (place.second == place.first
                ? [] : (0..<LimitHandle.ways).map { slot(place.second &* LimitHandle.ways &+ $0) })
    }

    /// True if nothing is lost with what the slot holds: its burst is whole, no connection counts on it, and its bytes
    /// are refilled. Only such a slot is ever reused, so that no reuse grants a fresh burst.
    func isFree(_ slot: LimitSlot, _ word: UInt64, _ now: UInt64) -> Bool {
        if word == LimitWord.virgin || LimitWord.isDead(word) { return true }
        guard LimitWord.isLive(word), word &+ LimitHandle.ageing <= now else { return false }
        guard isHeld else { return true }
        guard slot.reservations.pointee.current == 0 else { return false }
        return !isPaced || slot.bucket.pointee.isRefilled(Instant(nanoseconds: now))
    }

    /// Gives `key` a slot, or helps another thread that does so. False: there is no room.
    private func insert(_ key: LimitKeyBits, _ place: LimitPlace, _ now: UInt64) -> Bool {
        guard let (slot, number) = claim(place, now) else { return false }
        slot.setKey(key)
        let word = LimitWord.tentative(number)
        slot.publish(tag: place.tag, word: word)
        counters.pointee.inserted.wrappingAdd(1, ordering: .relaxed)
        settle(slot, word, key, place, now)
        return true
    }

    /// A free slot, now this thread's alone, and its number.
    func claim(_ place: LimitPlace, _ now: UInt64) -> (LimitSlot, UInt64)? {
        // The emptier bucket first: so a table is four fifths full before the first key finds no room.
        let (first, second) = (unused(place.first), unused(place.second))
        let order = second > first ? (place.second, place.first) : (place.first, place.second)
        return claim(in: order.0, now) ?? claim(in: order.1, now)
    }

    private func unused(_ bucket: Int) -> Int {
        var count = 0
        for way in 0..<LimitHandle.ways {
            let tag = slot(bucket &* LimitHandle.ways &+ way).tag
            if tag.pointee.load(ordering: .relaxed) == 0 { count &+= 1 }
        }
        return count
    }

    private func claim(in bucket: Int, _ now: UInt64) -> (LimitSlot, UInt64)? {
        for way in 0..<LimitHandle.ways {
            let slot = slot(bucket &* LimitHandle.ways &+ way)
            let word = slot.word
            let number = LimitWord.number(word)
            guard isFree(slot, word, now), slot.exchange(word, LimitWord.claimed(number)).done else { continue }
            if word == LimitWord.virgin {
                counters.pointee.touched.wrappingAdd(1, ordering: .relaxed)
                if isPaced { makeBuckets(slot) }
            }
            return (slot, number)
        }
        return nil
    }

    /// Decides whether a tentative slot goes live. Any thread may, so that none waits for a sleeping one.
    ///
    /// Of two slots with one key, whichever was published later is looked at after both are visible; a live one stays,
    /// of two tentative ones the lower. So at most one is ever live.
    func settle(_ slot: LimitSlot, _ word: UInt64, _ key: LimitKeyBits, _ place: LimitPlace, _ now: UInt64) {
        let number = LimitWord.number(word)
        let gone = LimitWord.dead(after: number)
        for index in 0..<(2 * LimitHandle.ways) {
            let bucket = index < LimitHandle.ways ? place.first : place.second
            let other = self.slot(bucket &* LimitHandle.ways &+ index % LimitHandle.ways)
            guard other.index != slot.index,
                other.tag.pointee.load(ordering: .sequentiallyConsistent) == place.tag
            else { continue }
            var seen = other.word
            guard other.holdsKey(key) else { continue }
            if LimitWord.isTentative(seen), other.index > slot.index {
                let (done, current) = other.exchange(seen, LimitWord.dead(after: LimitWord.number(seen)))
                if done { continue }
                seen = current
            }
            if LimitWord.isLive(seen) || LimitWord.isTentative(seen) {
                _ = slot.exchange(word, gone)
                return
            }
        }
        // Its burst is whole. Seen just now, it isn't free for others before it was charged.
        _ = slot.exchange(word, max(number &+ 1, now))
    }
}

// MARK: For tests

extension LimitHandle {
    /// How many entries `key` has: at most one, whatever happened.
    public func entryCount(of key: LimitKeyBits) -> Int {
        (0..<slotCount).count { index in
            let slot = slot(index)
            let word = slot.word
            return LimitWord.isLive(word) && slot.holdsKey(key)
        }
    }
}
