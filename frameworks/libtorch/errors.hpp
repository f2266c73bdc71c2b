// What an exception was, and which line of the version was running.

#pragma once

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <typeinfo>

#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

namespace errors {

// Where the last exception was thrown: only there is the version still on the stack.
inline thread_local std::array<void*, 128> frames;
inline thread_local int depth = 0;

/// What a program prints on its standard output. `command` is ours or made of numbers and our own paths.
inline std::string output(const std::string& command) {
    std::string found;
    if (FILE* pipe = popen(command.c_str(), "r")) {
        char chunk[4096];
        while (size_t count = fread(chunk, 1, sizeof chunk, pipe)) found.append(chunk, count);
        pclose(pipe);
    }
    return found;
}

/// A word of a command for sh.
inline std::string quoted(const std::string& word) {
    std::string found = "'";
    for (char letter : word) found += letter == '\'' ? std::string("'\\''") : std::string(1, letter);
    return found + "'";
}

/// The innermost line of `version` that was running where the last exception was thrown; null if there is none.
/// addr2line comes with g++ (binutils) and reads the lines that -g1 left in the library.
inline nlohmann::json line(const std::string& version, const std::string& library) {
    std::string addresses;
    for (int number = 0; number < depth; ++number) {
        Dl_info info;
        if (!dladdr(frames[number], &info) || !info.dli_fname || library != info.dli_fname) continue;
        char offset[32];
        auto address = static_cast<char*>(frames[number]) - static_cast<char*>(info.dli_fbase) - 1;  // of the call
        std::snprintf(offset, sizeof offset, " 0x%tx", address);
        addresses += offset;
    }
    if (addresses.empty()) return nullptr;
    auto told = output("addr2line -i -e " + quoted(library) + addresses + " 2>/dev/null");
    auto at = told.find(version + ":");
    if (at == std::string::npos) return nullptr;
    auto number = std::atoi(told.c_str() + at + version.size() + 1);
    return number ? nlohmann::json(number) : nlohmann::json(nullptr);
}

inline nlohmann::json described(const std::exception& error, nlohmann::json line) {
    int status = 0;
    char* name = abi::__cxa_demangle(typeid(error).name(), nullptr, nullptr, &status);
    auto torch = dynamic_cast<const c10::Error*>(&error);
    nlohmann::json found{{"type", name ? name : "error"},
                         {"message", torch ? torch->what_without_backtrace() : error.what()},
                         {"line", std::move(line)},
                         {"traceback", error.what()}};
    std::free(name);
    return found;
}

}  // namespace errors

// Every throw passes here, in this program and in all that it has loaded: note the stack, then throw.
extern "C" [[noreturn]] void __cxa_throw(void* thrown, void* type, void (*destroy)(void*)) {
    using Throw = void (*)(void*, void*, void (*)(void*));
    static auto original = reinterpret_cast<Throw>(dlsym(RTLD_NEXT, "__cxa_throw"));
    errors::depth = backtrace(errors::frames.data(), errors::frames.size());
    original(thrown, type, destroy);
    __builtin_unreachable();
}
