import Glibc
import Testing
import VMCore

@testable import SoftCPU

/// What REP MOVS costs, in this thread's own time, so that other work of the host's is not in it.
@Suite struct StringCopyTests {
    /// A copy goes by pages even where both sides' pages have the same place in the TLB, 4 MiB apart.
    @Test func aCopyBetweenPagesThatDisplaceEachOther() throws {
        let machine = try BareMachine()
        try machine.write(0xA007, at: 0x3010)
        for page in 0..<512 as Range<UInt64> { try machine.write(((page + 64) % 512) << 12 | 7, at: 0xA000 + page * 8) }
        func seconds(from: UInt64) throws -> Double {
            try machine.write(from, at: 0x10_0000 + 0x3FFF8)
            var best = Double.infinity
            for round in 0..<5 as Range<UInt64> {
                try machine.write(from + round, at: (from & 0x1F_FFFF) + 0x4_0000 + 0x3FFF8)
                (machine.general.rsi, machine.general.rdi, machine.general.rcx) = (from, 0x10_0000, 0x8000)
                var begin = timespec(), end = timespec()
                clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin)
                // rep movsq; hlt
                #expect(try machine.run([0xF3, 0x48, 0xA5, 0xF4], counted: false).vector == -1)
                clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end)
                #expect(machine.cpu.generalRegisters.rcx == 0)
                #expect(try machine.read(0x10_0000 + 0x3FFF8) == from + round)
                best = min(best, Double(end.tv_sec - begin.tv_sec) + Double(end.tv_nsec - begin.tv_nsec) / 1e9)
            }
            return best
        }
        let apart = try seconds(from: 0x54_0000), same = try seconds(from: 0x50_0000)
        #expect(same < apart * 5, "\(same) s where they share a place, else \(apart) s")
    }
}
