import Testing

@testable import X86

/// The disassembler's spelling, one line for each of its rules.
@Suite struct DisassemblerTests {
    private func text(_ bytes: [UInt8], _ mode: CodeMode = .bits64, at address: UInt64 = 0x1000) -> String {
        Disassembler.line(bytes.span, mode: mode, at: address).text
    }

    @Test func memoryOperands() {
        #expect(text([0x8B, 0x44, 0xC8, 0xF0]) == "mov eax, dword ptr [rax+rcx*8-0x10]")
        #expect(text([0x8B, 0x04, 0x25, 0x78, 0x56, 0x34, 0x12]) == "mov eax, dword ptr [0x12345678]")
        #expect(text([0x8B, 0x04, 0xCD, 0, 0, 0, 0]) == "mov eax, dword ptr [rcx*8]")
        #expect(text([0x8B, 0x05, 0x10, 0, 0, 0]) == "mov eax, dword ptr [rip+0x10]")
        #expect(text([0x67, 0x8B, 0x05, 0x10, 0, 0, 0]) == "mov eax, dword ptr [eip+0x10]")
        #expect(text([0x8B, 0x40, 0x08], .bits16) == "mov ax, word ptr [bx+si+0x8]")
        #expect(text([0xA1, 0x34, 0x12], .bits16) == "mov ax, word ptr [0x1234]")
        #expect(text([0xA0, 1, 2, 3, 4, 5, 6, 7, 8]) == "mov al, byte ptr [0x807060504030201]")
        #expect(text([0x65, 0x48, 0x01, 0x0C, 0x24]) == "add qword ptr gs:[rsp], rcx")
        #expect(text([0xF0, 0x65, 0x48, 0x01, 0x54, 0xC8, 0xF0]) == "lock add qword ptr gs:[rax+rcx*8-0x10], rdx")
        #expect(text([0x8D, 0x04, 0x08]) == "lea eax, [rax+rcx]")
        #expect(text([0xD7]) == "xlat byte ptr [rbx+al]")
        #expect(text([0xDB, 0x28]) == "fld tbyte ptr [rax]")
        #expect(text([0x0F, 0xAE, 0x00]) == "fxsave [rax]")
        #expect(text([0x0F, 0x6F, 0x00]) == "movq mm0, qword ptr [rax]")
        #expect(text([0x0F, 0x01, 0x10]) == "lgdt tbyte ptr [rax]")
        #expect(text([0x0F, 0x01, 0x10], .bits32) == "lgdt fword ptr [eax]")
    }

    @Test func branches() {
        #expect(text([0xEB, 0xFE]) == "jmp 0x1000")
        #expect(text([0xE8, 0, 0, 0, 0]) == "call 0x1005")
        #expect(text([0x0F, 0x84, 0xFA, 0xFF, 0xFF, 0xFF]) == "je 0x1000")
        #expect(text([0x74, 0x80], .bits16, at: 0x10) == "je 0xff92")
        #expect(text([0xEB, 0x80], .bits32, at: 0x10) == "jmp 0xffffff92")
        #expect(text([0xE3, 0x00]) == "jrcxz 0x1002")
        #expect(text([0x67, 0xE3, 0x00]) == "jecxz 0x1003")
        #expect(text([0xE3, 0x00], .bits16) == "jcxz 0x1002")
        #expect(text([0xEA, 0x78, 0x56, 0x34, 0x12, 0x23, 0x00], .bits32) == "jmp far 0x23:0x12345678")
        #expect(text([0xFF, 0x18]) == "call far fword ptr [rax]")
        #expect(text([0xFF, 0xE0]) == "jmp rax")
        #expect(text([0xC2, 0x08, 0x00]) == "ret 0x8")
    }

    @Test func immediates() {
        #expect(text([0x48, 0xB8, 8, 7, 6, 5, 4, 3, 2, 1]) == "mov rax, 0x102030405060708")
        #expect(text([0x48, 0xC7, 0xC0, 0xFF, 0xFF, 0xFF, 0xFF]) == "mov rax, 0xffffffffffffffff")
        #expect(text([0x83, 0xC0, 0xFF]) == "add eax, 0xffffffff")
        #expect(text([0x66, 0x83, 0xC0, 0xFF]) == "add ax, 0xffff")
        #expect(text([0x6A, 0xFF]) == "push 0xffffffffffffffff")
        #expect(text([0xC8, 0x10, 0x00, 0x02]) == "enter 0x10, 0x2")
        #expect(text([0xD1, 0xE0]) == "shl eax, 0x1")
        #expect(text([0xD3, 0xE0]) == "shl eax, cl")
        #expect(text([0xCD, 0x80]) == "int 0x80")
    }

    @Test func strings() {
        #expect(text([0xF3, 0x48, 0xA5]) == "rep movsq qword ptr [rdi], qword ptr [rsi]")
        #expect(text([0x64, 0xAC]) == "lodsb al, byte ptr fs:[rsi]")
        #expect(text([0x67, 0xAA]) == "stosb byte ptr [edi], al")
        #expect(text([0x6E]) == "outsb dx, byte ptr [rsi]")
    }

    @Test func badBytesStandForThemselves() {
        let line = Disassembler.line([0x06, 0x90].span, mode: .bits64, at: 0)
        #expect(line.text == "(bad)" && line.length == 1)
    }
}
