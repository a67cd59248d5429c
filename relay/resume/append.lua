-- Append events to the copy of a stream's log. Atomic, as a script; sent again it changes nothing.
--
-- KEYS  the Redis stream of the events, whose ids are their numbers (7-0); the hash of what is known about the stream
-- ARGV  the relay that has the stream; the caller; the number of the oldest event that is kept; the number of the first event
--       below; how long the events are kept, in ms; how long the hash is kept, in ms; "" or, where the stream is over, `ok` or
--       `failed`; the events
-- An entry of the stream: b the event's fields; or o, after the last event: how the stream ended.
-- Returns the number of the newest event that is stored: the relay goes on after it. Or -1 where others have ended the stream.
local stream, about = KEYS[1], KEYS[2]
local first, number, over = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[7]
local last = tonumber(redis.call('HGET', about, 'last') or first - 1)
local ended = redis.call('HGET', about, 'over')

if ended == 'broken' then return -1 end
if not ended then
    -- Where Redis has lost something, the relay begins with what is missing, or with the oldest event that it keeps.
    if number > last + 1 and number > first then return last end
    for i = 8, #ARGV do
        if number > last then
            redis.call('XADD', stream, number .. '-0', 'b', ARGV[i])
            last = number
        end
        number = number + 1
    end
    if over ~= '' then
        redis.call('XADD', stream, (last + 1) .. '-0', 'o', over)
        redis.call('HSET', about, 'over', over)
    end
end
redis.call('XTRIM', stream, 'MINID', first .. '-0')
redis.call('HSET', about, 'owner', ARGV[1], 'caller', ARGV[2], 'first', first, 'last', last)
redis.call('PEXPIRE', stream, ARGV[5])
redis.call('PEXPIRE', about, ARGV[6])
return last
