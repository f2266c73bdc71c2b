// The worker's end of the private pipe: one JSON object a line, each request answered once, in order.
//
// A thread reads requests, so that the worker ends at once when the program at the other end is gone, even in the midst
// of a long computation.

#pragma once

#include <unistd.h>

#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <queue>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>

class Channel {
  public:
    Channel(int reader, int writer) : writer_(writer) {
        std::thread([this, reader] { read(reader); }).detach();
    }

    nlohmann::json receive() {
        std::unique_lock lock(mutex_);
        ready_.wait(lock, [this] { return !requests_.empty(); });
        auto line = std::move(requests_.front());
        requests_.pop();
        return nlohmann::json::parse(line);
    }

    void send(const nlohmann::json& message) {
        auto line = text(message) + "\n";
        for (size_t sent = 0; sent < line.size();) {
            auto count = write(writer_, line.data() + sent, line.size() - sent);
            if (count < 0) std::_Exit(ended);
            sent += count;
        }
    }

  private:
    static constexpr int ended = 3;  // the other end closed: nobody is left to answer

    void read(int reader) {
        std::string buffer;
        char chunk[1 << 16];
        for (ssize_t count; (count = ::read(reader, chunk, sizeof chunk)) > 0;) {
            buffer.append(chunk, count);
            for (size_t end; (end = buffer.find('\n')) != std::string::npos; buffer.erase(0, end + 1)) {
                std::lock_guard lock(mutex_);
                requests_.push(buffer.substr(0, end));
                ready_.notify_one();
            }
        }
        std::_Exit(ended);
    }

    /// JSON in which NaN and infinity are what the protocol's other end reads them from, not null.
    static std::string text(const nlohmann::json& value) {
        if (value.is_number_float() && !std::isfinite(value.get<double>()))
            return std::isnan(value.get<double>()) ? "NaN" : value.get<double>() > 0 ? "Infinity" : "-Infinity";
        if (!value.is_structured() || value.empty())
            return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
        std::string inside;
        for (auto& [key, part] : value.items()) {
            if (!inside.empty()) inside += ", ";
            inside += (value.is_object() ? nlohmann::json(key).dump() + ": " : "") + text(part);
        }
        return value.is_object() ? "{" + inside + "}" : "[" + inside + "]";
    }

    int writer_;
    std::mutex mutex_;
    std::condition_variable ready_;
    std::queue<std::string> requests_;
};
