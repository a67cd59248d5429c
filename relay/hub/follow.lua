-- Read the events of a topic's Redis stream after an id, and extend the stream's expiry; create the stream if there is none.
--
-- KEYS  the topic's stream; the index of all topics (see publish.lua)
-- ARGV  the id; the maximum number of events to return; the topic's maximum age in seconds; the maximum number of topics
-- Returns the id of the newest event that was trimmed (or where the stream began), the id of the newest event, and the events,
-- each an id and its fields. Or an error that begins with TOPICS where there are too many topics.
local stream, index = KEYS[1], KEYS[2]
local after, count, seconds, max_topics = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function ms(number) return string.format('%.0f', number) end
local function field(list, name)
    for i = 1, #list, 2 do
        if list[i] == name then return list[i + 1] end
    end
end

if redis.call('EXISTS', stream) == 0 then
    redis.call('ZREMRANGEBYSCORE', index, '-inf', ms(now))
    if redis.call('ZCARD', index) >= max_topics then return redis.error_reply('TOPICS too many') end
    -- An empty stream keeps its last-generated-id, which tells readers where it began.
    redis.call('XDEL', stream, redis.call('XADD', stream, '*', 'b', ''))
end
redis.call('XTRIM', stream, 'MINID', ms(now - seconds * 1000))
redis.call('PEXPIRE', stream, ms(seconds * 1000))
redis.call('ZADD', index, ms(now + seconds * 1000), stream)

local last = field(redis.call('XINFO', 'STREAM', stream), 'last-generated-id')
local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local floor = oldest and field(oldest[2], 'p') or last
return {floor, last, redis.call('XRANGE', stream, '(' .. after, '+', 'COUNT', count)}
